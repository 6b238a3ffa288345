"""Asks a server about a picture with the official client (`pip install openai`): one answer, then a stream.

    python examples/client.py http://127.0.0.1:8000 examples/triangle.png "what shape is in the image?" "what color?"

A key, where the server wants one, is taken from the variable FUSIONVL_API_KEY.
"""

import base64
import os
import sys
from pathlib import Path

from openai import OpenAI

url, picture, question, follow_up = sys.argv[1:]
client = OpenAI(base_url=f"{url}/v1", api_key=os.environ.get("FUSIONVL_API_KEY", "none"))
model = client.models.list().data[0].id

content = base64.b64encode(Path(picture).read_bytes()).decode()
messages = [
    {
        "role": "user",
        "content": [
            {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{content}"}},
            {"type": "text", "text": question},
        ],
    }
]
answer = client.chat.completions.create(model=model, messages=messages).choices[0].message.content
print(answer)

messages += [{"role": "assistant", "content": answer}, {"role": "user", "content": follow_up}]
for chunk in client.chat.completions.create(model=model, messages=messages, stream=True):
    print(chunk.choices[0].delta.content or "", end="", flush=True)
print()
