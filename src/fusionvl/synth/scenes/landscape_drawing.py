"""Draws landscapes: sky, ground and what falls from the clouds. Chooses nothing.

Everything behind the things; what looks random (stars, rain, windows) is the same in every landscape.
"""

from PIL import Image, ImageDraw

from fusionvl.synth.scenes.draws import Draws
from fusionvl.synth.scenes.landscapes import ground_colour
from fusionvl.synth.scenes.palette import Rgb, mixed
from fusionvl.synth.scenes.scene_graph import Box, Landscape

_SKIES: dict[str, tuple[Rgb, Rgb]] = {
    "day": ((112, 178, 240), (206, 232, 250)),
    "sunset": ((112, 84, 150), (252, 164, 92)),
    "night": ((8, 12, 36), (34, 44, 88)),
}
_OVERCAST: dict[str, Rgb] = {"day": (176, 184, 192), "sunset": (150, 120, 128), "night": (40, 44, 58)}
_LIGHTS: dict[str, Rgb] = {"day": (255, 222, 60), "sunset": (255, 120, 40), "night": (244, 240, 214)}
_CLOUDS: dict[str, Rgb] = {"day": (250, 251, 253), "sunset": (252, 206, 190), "night": (104, 110, 130)}
_FINER = 2
_SCATTER = [(x.between(0, 1), x.between(0, 1)) for x in [Draws("stars, rain and snow")] for _ in range(110)]


def draw_landscape(landscape: Landscape, size: int) -> Image.Image:
    """A picture of the landscape, without things."""
    side = size * _FINER
    image = Image.new("RGB", (side, side))
    horizon = round(landscape.horizon * side)
    _paint_fade(image, (0, 0, side, horizon), *_sky(landscape))
    draw = ImageDraw.Draw(image)
    if landscape.time == "night" and landscape.weather == "clear":
        _paint_stars(draw, side, horizon, landscape.light)
    if landscape.light is not None:
        _paint_light(image, landscape.light, landscape.time)
    _paint_skyline(draw, landscape, side, horizon)
    ground = ground_colour(landscape.setting, landscape.time)
    _paint_fade(image, (0, horizon, side, side), mixed(ground, (255, 255, 255), 0.12), ground)
    if landscape.setting == "sea":
        _paint_waves(draw, side, horizon, mixed(ground, (255, 255, 255), 0.35))
    if landscape.setting == "street":
        _paint_lane(draw, side, horizon, mixed(ground, (255, 255, 255), 0.7))
    for cloud in landscape.clouds:
        _paint_cloud(draw, cloud, side, _cloud_colour(landscape))
    if landscape.weather in ("rainy", "snowy"):
        _paint_falling(draw, landscape.weather, side)
    return image.reduce(_FINER)


def _sky(landscape: Landscape) -> tuple[Rgb, Rgb]:
    upper, lower = _SKIES[landscape.time]
    grey = _OVERCAST[landscape.time]
    share = {"clear": 0.0, "cloudy": 0.15}.get(landscape.weather, 0.8)
    return mixed(upper, grey, share), mixed(lower, grey, share)


def _cloud_colour(landscape: Landscape) -> Rgb:
    light = _CLOUDS[landscape.time]
    return light if landscape.weather == "cloudy" else mixed(light, (84, 88, 98), 0.6)


def _paint_fade(image: Image.Image, box: tuple[int, int, int, int], upper: Rgb, lower: Rgb) -> None:
    extent = (box[2] - box[0], box[3] - box[1])
    mask = Image.linear_gradient("L").resize((1, extent[1])).resize(extent)
    image.paste(upper, box)
    image.paste(lower, box, mask)


def _paint_stars(draw: ImageDraw.ImageDraw, side: int, horizon: int, moon: Box | None) -> None:
    radius = max(1, round(side / 220))
    for across, down in _SCATTER[:40]:
        x, y = side * across, horizon * down * 0.9
        if moon is None or not moon.grown(0.02).contains(Box(x / side, y / side, x / side, y / side)):
            draw.ellipse((x - radius, y - radius, x + radius, y + radius), fill=(236, 236, 220))


def _paint_light(image: Image.Image, light: Box, time: str) -> None:
    """The sun, round; the moon, a crescent."""
    side = round(light.width * image.width)
    mask = Image.new("L", (side, side))
    draw = ImageDraw.Draw(mask)
    draw.ellipse((0, 0, side - 1, side - 1), fill=255)
    if time == "night":
        draw.ellipse((side * 0.32, -side * 0.1, side * 1.32, side * 0.9), fill=0)
    image.paste(_LIGHTS[time], (round(light.left * image.width), round(light.top * image.width)), mask)


def _paint_skyline(draw: ImageDraw.ImageDraw, landscape: Landscape, side: int, horizon: int) -> None:
    dim = {"day": 0.0, "sunset": 0.35, "night": 0.65}[landscape.time]
    if landscape.setting == "mountains":
        rock, snow = mixed((112, 120, 140), (14, 16, 36), dim), mixed((246, 248, 252), (14, 16, 36), dim)
        for x, height in ((0.12, 0.14), (0.42, 0.19), (0.76, 0.16)):
            peak = horizon - height * side
            draw.polygon(((x * side, peak), ((x + 0.3) * side, horizon), ((x - 0.3) * side, horizon)), fill=rock)
            cap = height * 0.3
            spread = cap / height * 0.3
            draw.polygon(
                ((x * side, peak), ((x + spread) * side, peak + cap * side), ((x - spread) * side, peak + cap * side)),
                fill=snow,
            )
    elif landscape.setting == "street":
        _paint_buildings(draw, side, horizon, dim, lit=landscape.time == "night")


def _paint_buildings(draw: ImageDraw.ImageDraw, side: int, horizon: int, dim: float, lit: bool) -> None:
    heights = (0.12, 0.17, 0.1, 0.19, 0.14, 0.11, 0.18)
    window = (250, 220, 120) if lit else mixed((200, 220, 232), (14, 16, 36), dim)
    width = side / len(heights)
    for index, height in enumerate(heights):
        left, top = index * width, horizon - height * side
        wall = mixed(((150, 112, 100), (124, 128, 140), (172, 152, 128))[index % 3], (14, 16, 36), dim)
        draw.rectangle((left, top, left + width * 0.94, horizon), fill=wall)
        pane = width / 7
        for row in range(int(height * side / (2 * pane)) - 1):
            for column in range(2):
                x, y = left + width * (0.2 + 0.4 * column), top + pane * (1 + 2 * row)
                draw.rectangle((x, y, x + pane, y + pane), fill=window)


def _paint_waves(draw: ImageDraw.ImageDraw, side: int, horizon: int, colour: Rgb) -> None:
    for index in range(26):
        x = side * (index * 0.6180339 % 1)
        y = horizon + (side - horizon) * (0.08 + 0.88 * index / 26)
        length = side * (0.04 + 0.04 * index / 26)
        draw.arc((x, y, x + length, y + length / 2), 200, 340, fill=colour, width=max(2, round(side / 200)))


def _paint_lane(draw: ImageDraw.ImageDraw, side: int, horizon: int, colour: Rgb) -> None:
    y = horizon + (side - horizon) * 0.55
    for index in range(6):
        x = side * (index + 0.2) / 6
        draw.rectangle((x, y, x + side / 11, y + side / 70), fill=colour)


def _paint_cloud(draw: ImageDraw.ImageDraw, box: Box, side: int, colour: Rgb) -> None:
    width = box.width * side
    for x, y, radius in ((0.2, 0.55, 0.18), (0.42, 0.42, 0.24), (0.66, 0.46, 0.21), (0.82, 0.57, 0.16)):
        centre_x, centre_y, r = box.left * side + x * width, box.top * side + y * width, radius * width
        draw.ellipse((centre_x - r, centre_y - r, centre_x + r, centre_y + r), fill=colour)
    bottom = (box.top * side) + 0.73 * width
    draw.rectangle(
        (box.left * side + 0.2 * width, bottom - 0.2 * width, box.left * side + 0.82 * width, bottom), colour
    )


def _paint_falling(draw: ImageDraw.ImageDraw, weather: str, side: int) -> None:
    for across, down in _SCATTER:
        x, y = side * across, side * down
        if weather == "rainy":
            draw.line((x, y, x - side / 70, y + side / 24), fill=(190, 206, 230), width=max(2, round(side / 260)))
        else:
            r = side / 150
            draw.ellipse((x - r, y - r, x + r, y + r), fill=(252, 252, 255))
