"""The official SDKs against one proxy: plain, streaming, tools and errors, each as the SDK's own types.

Reads PROXY_URL, CLIENT_KEY and LIMITED_KEY (a key whose user has used up its requests per minute). Upstreams
misbehave by the header `x-demo`, which the scripted upstream of the tests understands.
"""

import json
import os

import anthropic
import openai

URL = os.environ["PROXY_URL"]
KEY = os.environ["CLIENT_KEY"]
LIMITED = os.environ["LIMITED_KEY"]

CLAUDE = "claude-t"
GPT = "gpt-t"
QUESTION = [{"role": "user", "content": "hello"}]
USE_TOOL = [{"role": "user", "content": "please use the tool"}]
SCHEMA = {
    "type": "object",
    "properties": {"city": {"type": "string"}, "n": {"type": "integer"}},
    "required": ["city", "n"],
    "additionalProperties": False,
}
ARGUMENTS = {"city": "demo", "n": 1}


def raised(expected, call):
    """The exception of exactly the expected kind that `call` raises."""
    try:
        result = call()
    except expected as error:
        return error
    raise AssertionError(f"no {expected.__name__}, but {result!r}")


def claude(key=KEY):
    return anthropic.Anthropic(base_url=URL, api_key=key, max_retries=0, timeout=60)


def gpt(key=KEY):
    return openai.OpenAI(base_url=f"{URL}/v1", api_key=key, max_retries=0, timeout=60)


def ask_claude(client=None, **more):
    body = {"model": CLAUDE, "max_tokens": 64, "messages": QUESTION, **more}
    return (client or claude()).messages.create(**body)


def messages_plain_and_streaming():
    message = ask_claude()
    assert message.content[0].text.startswith("Hello"), message
    assert message.usage.input_tokens > 0 and message.usage.output_tokens > 0, message
    with claude().messages.stream(model=CLAUDE, max_tokens=64, messages=QUESTION) as stream:
        text = "".join(stream.text_stream)
        final = stream.get_final_message()
    assert text == final.content[0].text and final.stop_reason == "end_turn", final
    bearer = anthropic.Anthropic(base_url=URL, auth_token=KEY, api_key=None, max_retries=0)
    assert ask_claude(bearer).content[0].text.startswith("Hello")
    count = claude().messages.count_tokens(model=CLAUDE, messages=QUESTION)
    assert count.input_tokens > 0, count


def messages_tools():
    tools = [{"name": "weather", "description": "Tells it.", "input_schema": SCHEMA}]
    with claude().messages.stream(model=CLAUDE, max_tokens=64, tools=tools, messages=USE_TOOL) as stream:
        final = stream.get_final_message()
    use = next(block for block in final.content if block.type == "tool_use")
    assert use.input == ARGUMENTS and final.stop_reason == "tool_use", final
    turns = USE_TOOL + [
        {"role": "assistant", "content": [{"type": "tool_use", "id": use.id, "name": use.name, "input": use.input}]},
        {"role": "user", "content": [{"type": "tool_result", "tool_use_id": use.id, "content": "sunny"}]},
    ]
    assert ask_claude(tools=tools, messages=turns).stop_reason == "end_turn"
    plain = ask_claude(tools=tools, messages=USE_TOOL)
    assert any(block.type == "tool_use" for block in plain.content), plain


def messages_errors():
    error = raised(anthropic.AuthenticationError, lambda: ask_claude(claude("sk-" + "0" * 32)))
    assert error.body["error"]["type"] == "authentication_error", error.body
    error = raised(anthropic.RateLimitError, lambda: ask_claude(claude(LIMITED)))
    assert error.body["error"]["type"] == "rate_limit_error", error.body
    assert 1 <= int(error.response.headers["retry-after"]) <= 60, error.response.headers
    for directive, expected, status in [
        ("status=400", anthropic.BadRequestError, 400),
        ("status=404", anthropic.NotFoundError, 404),
        ("status=500", anthropic.InternalServerError, 503),
        ("fake200", anthropic.InternalServerError, 503),
    ]:
        error = raised(expected, lambda: ask_claude(extra_headers={"x-demo": directive}))
        assert error.status_code == status, (directive, error)
        assert error.body["type"] == "error" and error.body["error"]["message"], (directive, error.body)
    for directive in ["cut=6", "end_early=6", "error_event=6"]:
        def run():
            with claude().messages.stream(
                model=CLAUDE, max_tokens=64, messages=QUESTION, extra_headers={"x-demo": directive}
            ) as stream:
                return "".join(stream.text_stream)
        error = raised(anthropic.APIStatusError, run)
        assert error.body["error"]["message"], (directive, error.body)


def chat_plain_streaming_and_tools():
    create = gpt().chat.completions.create
    plain = create(model=GPT, messages=QUESTION)
    assert plain.choices[0].message.content.startswith("Hello") and plain.usage.total_tokens > 0, plain
    chunks = list(create(model=GPT, messages=QUESTION, stream=True))
    assert chunks[-1].choices[0].finish_reason == "stop" and all(c.usage is None for c in chunks), chunks
    chunks = list(create(model=GPT, messages=QUESTION, stream=True, stream_options={"include_usage": True}))
    assert chunks[-1].choices == [] and chunks[-1].usage.total_tokens > 0, chunks
    tools = [{"type": "function", "function": {"name": "weather", "strict": True, "parameters": SCHEMA}}]
    with gpt().chat.completions.stream(model=GPT, messages=USE_TOOL, tools=tools) as stream:
        for _ in stream:
            pass
        final = stream.get_final_completion()
    call = final.choices[0].message.tool_calls[0]
    assert json.loads(call.function.arguments) == ARGUMENTS, final


def responses_plain_streaming_and_tools():
    plain = gpt().responses.create(model=GPT, input="hello")
    assert plain.output_text.startswith("Hello") and plain.usage.total_tokens > 0, plain
    with gpt().responses.stream(model=GPT, input="hello") as stream:
        for _ in stream:
            pass
        final = stream.get_final_response()
    assert final.output_text.startswith("Hello") and final.usage.output_tokens > 0, final
    tools = [{"type": "function", "name": "weather", "parameters": SCHEMA, "strict": True}]
    with gpt().responses.stream(model=GPT, input="use the tool", tools=tools) as stream:
        for _ in stream:
            pass
        final = stream.get_final_response()
    calls = [item for item in final.output if item.type == "function_call"]
    assert json.loads(calls[0].arguments) == ARGUMENTS, final


def openai_errors():
    def chat(client=None, **more):
        return (client or gpt()).chat.completions.create(model=GPT, messages=QUESTION, **more)

    def response(client=None, **more):
        return (client or gpt()).responses.create(model=GPT, input="hello", **more)

    for call in [chat, response]:
        error = raised(openai.AuthenticationError, lambda: call(gpt("sk-" + "0" * 32)))
        assert error.code == "invalid_api_key", error
        error = raised(openai.RateLimitError, lambda: call(gpt(LIMITED)))
        assert error.code == "rate_limit_exceeded", error
        for directive, expected, status in [
            ("status=400", openai.BadRequestError, 400),
            ("status=404", openai.NotFoundError, 404),
            ("status=500", openai.InternalServerError, 503),
            ("fake200json", openai.InternalServerError, 503),
        ]:
            error = raised(expected, lambda: call(extra_headers={"x-demo": directive}))
            assert error.status_code == status, (directive, error)
        for directive in ["cut=8", "end_early=8"]:
            raised(openai.APIError, lambda: list(call(stream=True, extra_headers={"x-demo": directive})))


def a_silent_upstream():
    """Silent for longer than SSE_KEEPALIVE, then an answer or an error: the head and keep-alives are out by then."""
    def message(directive):
        client, headers = claude(), {"x-demo": directive}
        with client.messages.stream(model=CLAUDE, max_tokens=64, messages=QUESTION, extra_headers=headers) as stream:
            return stream.get_final_message().content[0].text

    def chat(directive):
        client, headers = gpt(), {"x-demo": directive}
        with client.chat.completions.stream(model=GPT, messages=QUESTION, extra_headers=headers) as stream:
            return stream.get_final_completion().choices[0].message.content

    def response(directive):
        with gpt().responses.stream(model=GPT, input="hello", extra_headers={"x-demo": directive}) as stream:
            return stream.get_final_response().output_text

    for call, base, busy in [
        (message, anthropic.APIStatusError, "overloaded_error"),
        (chat, openai.APIError, "service_unavailable_error"),
        (response, openai.APIError, "service_unavailable_error"),
    ]:
        for silent in ["delay=2500", "delay_body=2500"]:
            assert call(silent).startswith("Hello"), (call, silent)
        for status, kind in [(400, "invalid_request_error"), (429, busy), (503, busy)]:
            error = raised(base, lambda: call(f"status={status},delay=2500"))
            # No exception of a status: that is 200.
            body = error.body.get("error", error.body)
            assert body["type"] == kind and body["message"], (call, status, error.body)


def embeddings_and_models():
    both = gpt().embeddings.create(model="text-embedding-3-small", input=["a", "b"])
    assert len(both.data) == 2 and both.data[1].embedding == [0.25, 0.5, 0.75, 1.0], both
    one = gpt().embeddings.create(model="text-embedding-3-small", input="a", encoding_format="float")
    assert one.data[0].embedding == [0.25, 0.5, 0.75, 1.0], one
    assert GPT in [model.id for model in gpt().models.list()]
    assert CLAUDE in [model.id for model in claude().models.list()]
    assert gpt().models.retrieve(GPT).id == GPT


def main():
    checks = [
        messages_plain_and_streaming,
        messages_tools,
        messages_errors,
        chat_plain_streaming_and_tools,
        responses_plain_streaming_and_tools,
        openai_errors,
        a_silent_upstream,
        embeddings_and_models,
    ]
    for check in checks:
        check()
        print(f"ok {check.__name__}", flush=True)


if __name__ == "__main__":
    main()
