"""Stand-ins for a language model that filters ask."""

import asyncio

from fusionvl.synth.rows import Row
from fusionvl.synth.text_client import RequestError, TextReply


class FakeClient:
    """Replies by a function of the request's text, which may raise; keeps requests and the most in flight.

    `number` is that of the request being replied to.
    """

    def __init__(self, reply):
        self.reply, self.requests, self.number, self.flying, self.most = reply, [], 0, 0, 0

    async def complete(self, request):
        self.requests.append(request.messages)
        number = len(self.requests)
        self.flying += 1
        self.most = max(self.most, self.flying)
        await asyncio.sleep(0.001)
        self.flying -= 1
        self.number = number
        content = request.messages[-1]["content"]
        return TextReply(self.reply(content if isinstance(content, str) else content[-1]["text"]), "fake")

    def close(self):
        pass


def knowing(rows: list[Row], fails: tuple[int, ...] = ()) -> FakeClient:
    """A text model that has read the rows: it gives their answers. Fails on the requests it is told to."""

    def reply(text: str) -> str:
        if client.number in fails:
            raise RequestError("lost")
        turns = [turn for row in rows if row.description in text for turn in row.turns]
        return next((turn.correct for turn in turns if turn.question in text), "no idea")

    client = FakeClient(reply)
    return client
