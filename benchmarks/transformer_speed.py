"""How fast does the Transformer sample and train, beside Hugging Face's GPT-2 of the same shape?

6 layers, 384 features, 6 heads, 256 symbols, a context of 1024; float32, one thread, CPU time, medians of pairs in one run.
Sampling is ``generate`` and ``ancestral.sample``, whole calls that draw 128 symbols from the model's own distribution; training
is a forward and a backward pass over the likelihood of 4 examples of 256 symbols, without dropout.

    python benchmarks/transformer_speed.py
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

import torch
from record import Record
from transformers import GPT2Config, GPT2LMHeadModel
from transformers.utils import logging

import ancestral
from ancestral.networks.gpt2 import fill
from ancestral.walking.engines import refusal

LEVELS, SYMBOLS, REPEATS = 256, 128, 9
SIZES = {"layers": 6, "width": 384, "heads": 6, "context": 1024, "dropout": 0.0, "start": "last"}


def pair() -> tuple[GPT2LMHeadModel, ancestral.Autoregressive]:
    """Two models with the same weights."""
    config = GPT2Config(vocab_size=LEVELS, n_positions=1024, n_embd=384, n_layer=6, n_head=6)
    config.update({"bos_token_id": LEVELS - 1, "eos_token_id": None, "resid_pdrop": 0.0, "embd_pdrop": 0.0, "attn_pdrop": 0.0})
    theirs = GPT2LMHeadModel(config).eval()
    ours = ancestral.build("transformer", ancestral.DataSpec("text", (SYMBOLS,), levels=LEVELS), preset="small", **SIZES)
    fill(ours, theirs.transformer.state_dict())
    return theirs, ours.eval()


def seconds(call: Callable[[], object]) -> float:
    since = time.process_time()
    call()
    return time.process_time() - since


def compare(theirs: Callable[[], object], ours: Callable[[], object]) -> tuple[float, float, float]:
    """Medians of the seconds of both, and of their ratios pair by pair."""
    theirs(), ours()
    pairs = [(seconds(theirs), seconds(ours)) for _ in range(REPEATS)]
    return median(a for a, _ in pairs), median(b for _, b in pairs), median(a / b for a, b in pairs)


def sampling(record: Record, engine: str, batch: int) -> None:
    theirs, ours = pair()
    start = torch.full((batch, 1), LEVELS - 1)
    options = {
        "max_new_tokens": SYMBOLS,
        "do_sample": True,
        "top_k": 0,
        "pad_token_id": 0,
        "attention_mask": torch.ones_like(start),
    }
    a, b, ratio = compare(lambda: theirs.generate(start, **options), lambda: ancestral.sample(ours, batch, engine=engine))
    rates = {"theirs_per_s": round(batch * SYMBOLS / a), "ours_per_s": round(batch * SYMBOLS / b), "ratio": round(ratio, 2)}
    record.add(f"sampling, {engine}, batch {batch}", rates)


def training(record: Record) -> None:
    theirs, ours = pair()
    model, x = ancestral.arrange(ours, shape=(256,)), torch.randint(LEVELS, (4, 256))
    given = torch.cat([torch.full((4, 1), LEVELS - 1), x[:, :-1]], 1)

    def step() -> None:
        theirs.zero_grad()
        torch.nn.functional.cross_entropy(theirs(given).logits.flatten(0, 1), x.flatten()).backward()

    def our_step() -> None:
        model.zero_grad()
        (-model.log_prob(x).mean() / 256).backward()

    step(), our_step()
    theirs_slope, our_slope = theirs.transformer.wpe.weight.grad, model.network.places.targets["place"].grad
    assert torch.allclose(theirs_slope, our_slope, atol=1e-6)
    a, b, ratio = compare(step, our_step)
    record.add("training", {"theirs_s": round(a, 3), "ours_s": round(b, 3), "ratio": round(ratio, 2)})


def main() -> None:
    torch.set_num_threads(1)
    torch.manual_seed(0)
    logging.set_verbosity_error()
    record = Record(Path(__file__).parent / "results" / "transformer_speed.json", __doc__.splitlines()[0])
    network = pair()[1].network
    reason = refusal(network.lowered(), network.anchor)
    for engine in ("eager",) if reason else ("eager", "native"):
        for batch in (1, 16):
            sampling(record, engine, batch)
    training(record)


if __name__ == "__main__":
    main()
