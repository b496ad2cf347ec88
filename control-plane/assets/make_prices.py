#!/usr/bin/env python3
"""Write prices.json, the default price table, from the table inside the Python package `litellm`.

Usage: python3 make_prices.py [TABLE.json]      (without an argument the installed package is read)

What comes out: one entry a line, sorted, by bare model name; prices are decimal strings without
exponent, in USD per token (character, image, second, query, request where the name says so), so no
reader ever needs floating point. `<price>_above_<N>k_tokens` holds for the whole request once its
input exceeds N thousand tokens; `_priority` for the priority service tier. Only facts are taken over.
"""

import importlib.util
import json
import pathlib
import re
import sys
from decimal import Decimal

TABLE = "model_prices_and_context_window_backup.json"
OUT = pathlib.Path(__file__).with_name("prices.json")

# First-party vendors, in the order in which they win a bare name. Value: the prefix of their names.
VENDORS = {
    "openai": "openai",
    "text-completion-openai": "openai",
    "anthropic": "anthropic",
    "gemini": "gemini",
    "vertex_ai-language-models": "vertex_ai",
    "vertex_ai-embedding-models": "vertex_ai",
    "deepseek": "deepseek",
    "mistral": "mistral",
    "codestral": "codestral",
    "xai": "xai",
    "perplexity": "perplexity",
    "cohere": "cohere",
    "cohere_chat": "cohere",
    "ai21": "ai21",
    "moonshot": "moonshot",
    "zai": "zai",
    "minimax": "minimax",
    "volcengine": "volcengine",
    "dashscope": "dashscope",
    # Resold by Google; their names differ from the vendor's own by an `@date`.
    "vertex_ai-anthropic_models": "vertex_ai",
    "vertex_ai-mistral_models": "vertex_ai",
    "vertex_ai": "vertex_ai",
}

MODES = {
    "chat", "responses", "completion", "embedding", "rerank", "moderation", "realtime",
    "image_generation", "image_edit", "audio_transcription", "audio_speech",
}

TOKEN_PRICES = (
    "input_cost_per_token|output_cost_per_token|output_cost_per_reasoning_token"
    "|cache_read_input_token_cost|cache_creation_input_token_cost"
    "|cache_creation_input_token_cost_above_1hr"
)
FLAT_PRICES = (
    "input_cost_per_audio_token|output_cost_per_audio_token|cache_read_input_audio_token_cost"
    "|cache_creation_input_audio_token_cost|input_cost_per_image_token|output_cost_per_image_token"
    "|cache_read_input_image_token_cost|input_cost_per_image|output_cost_per_image"
    "|input_cost_per_second|input_cost_per_query|input_cost_per_request|input_cost_per_character"
)
PRICE = re.compile(rf"(?:{TOKEN_PRICES})(?:_above_\d+k_tokens)?(?:_priority)?|(?:{FLAT_PRICES})(?:_priority)?")
LIMITS = ("max_input_tokens", "max_output_tokens")

# The source writes 0 for prices that it does not know.
UNKNOWN_AT_ZERO = {"volcengine"}
# Perplexity resells others' models; its own are these.
PERPLEXITY_OWN = re.compile(r"(?:sonar|pplx)[\w.-]*")


def plain(number):
    """An exact decimal string without exponent and without trailing zeros."""
    text = format(Decimal(number), "f")
    return text.rstrip("0").rstrip(".") if "." in text else text


def flat(entry):
    """The entry with `tiered_pricing` spelt as a base price and `_above_<N>k_tokens` prices."""
    out = {name: value for name, value in entry.items() if name != "tiered_pricing"}
    for tier in entry.get("tiered_pricing") or []:
        if "range" not in tier:
            continue
        start = Decimal(tier["range"][0])
        suffix = f"_above_{int(start) // 1000}k_tokens" if start else ""
        for name, value in tier.items():
            if name != "range":
                out.setdefault(name + suffix, value)
    return out


def prices(entry):
    """What we price by, or nothing when the entry has no usable price."""
    found = {}
    for name, value in flat(entry).items():
        is_number = isinstance(value, (int, Decimal)) and not isinstance(value, bool)
        if is_number and value >= 0 and PRICE.fullmatch(name):
            found[name] = plain(value)
    if entry["litellm_provider"] in UNKNOWN_AT_ZERO and all(v == "0" for v in found.values()):
        return {}
    return found


def bare_name(name, prefix):
    """The name as a client sends it, or None for names that are not a model's."""
    bare = name.removeprefix(f"{prefix}/")
    if prefix == "vertex_ai":  # vertex_ai/mistralai/codestral-2, vertex_ai/xai/grok-4.3
        bare = bare.rsplit("/", 1)[-1]
    if "/" in bare or (prefix == "perplexity" and not PERPLEXITY_OWN.fullmatch(bare)):
        return None
    return bare


def build(source):
    """Bare names first come, first served in the order of VENDORS; other prices keep their prefix."""
    rank = {vendor: place for place, vendor in enumerate(VENDORS)}
    known = [(n, e) for n, e in source.items() if e.get("litellm_provider") in rank and e.get("mode") in MODES]
    # Within a vendor the unprefixed spelling comes first.
    known.sort(key=lambda item: (rank[item[1]["litellm_provider"]], "/" in item[0], item[0]))
    table = {}
    for name, entry in known:
        prefix = VENDORS[entry["litellm_provider"]]
        bare, cost = bare_name(name, prefix), prices(entry)
        if not bare or not cost:
            continue
        row = {"mode": entry["mode"], "litellm_provider": entry["litellm_provider"]}
        row |= {limit: int(entry[limit]) for limit in LIMITS if isinstance(entry.get(limit), (int, Decimal))}
        row |= dict(sorted(cost.items()))
        taken = table.setdefault(bare, row)
        same_prices = {k: v for k, v in taken.items() if PRICE.fullmatch(k)} == cost
        if taken is not row and VENDORS[taken["litellm_provider"]] != prefix and not same_prices:
            table.setdefault(f"{prefix}/{bare}", row)
    return table


def main():
    """Read, build, write."""
    if len(sys.argv) > 1:
        path = pathlib.Path(sys.argv[1])
    else:
        spec = importlib.util.find_spec("litellm")
        if spec is None or spec.origin is None:
            sys.exit("make_prices: install the Python package litellm or name its table file as the argument")
        path = pathlib.Path(spec.origin).with_name(TABLE)
    source = json.loads(path.read_text(), parse_float=Decimal)
    table = build(source)
    lines = (f"{json.dumps(n)}:{json.dumps(table[n], separators=(',', ':'))}" for n in sorted(table))
    OUT.write_text("{\n" + ",\n".join(lines) + "\n}\n")
    print(f"{OUT.name}: {len(table)} models, {OUT.stat().st_size} bytes")


if __name__ == "__main__":
    main()
