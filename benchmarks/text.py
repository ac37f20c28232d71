"""Can a character LSTM write a Tang poem better than a trigram model? Bits per character on poems held out.

    python benchmarks/text.py                     # LSTM by maximum likelihood, an ensemble of five, mean field
    python benchmarks/text.py --models mle        # one of: mle, ensemble, meanfield
    python benchmarks/text.py --smoke             # seconds, to see that it runs

Protocol. ``ps.datasets.tang_poems("wuyan")``: 1608 poems to train on, 200 to stop early by, 200 to test on, no phrase
of five characters twice among them. All models have one vocabulary, that of the training poems: characters that come
once are "<unknown>", and the end of a poem is a token. A score is -log2 p over all tokens, ends included, divided by
their number. Hyper-parameters were chosen by the validation poems; each model is scored on the test poems once. The
baseline is an interpolated modified Kneser-Ney trigram, ``MarkovChain(order=2, smoothing="kneser_ney")``.

Form. A generated poem keeps its form if it is four or eight phrases of five characters, each closed by its mark: a
comma, then a full stop, and so on. 200 poems are drawn with the unknown character left out.

Memory of large arrays is returned to the system after each step of training, and asking for it again can take longer
than the arithmetic. Where it does, MALLOC_MMAP_THRESHOLD_=1073741824 MALLOC_TRIM_THRESHOLD_=4294967296 in the
environment keeps it.
"""

from __future__ import annotations

import argparse
import re
import time
from typing import Any

from _record import Record, add_options

import probseq as ps

FORM = re.compile(r"(?:[^，。]{5}，[^，。]{5}。){2}(?:(?:[^，。]{5}，[^，。]{5}。){2})?")


def network(inference: Any, hidden_size: int, locked_dropout: float) -> ps.LSTM:
    """One layer whose output vectors are those that it reads, which is what few poems can teach."""
    return ps.LSTM(
        hidden_size,
        head=ps.Categorical(),
        embedding_size=hidden_size // 2,
        tie_embeddings=True,
        locked_dropout=locked_dropout,
        inference=inference,
        random_state=0,
    )


def candidates(smoke: bool) -> dict[str, ps.LSTM]:
    """The networks by name."""
    epochs, size = (2, 16) if smoke else (40, 128)
    point = ps.TrainingOptions(max_epochs=epochs, learning_rate=1e-2, weight_decay=1e-5)
    law = ps.TrainingOptions(max_epochs=epochs if smoke else 60, learning_rate=2e-2)
    return {
        "mle": network(ps.MLE(training=point), size, 0.4),
        "ensemble": network(ps.Ensemble(2 if smoke else 5, ps.MLE(training=point)), size, 0.4),
        "meanfield": network(ps.MeanField(n_draws=2 if smoke else 10, training=law), size // 2, 0.0),
    }


def report(name: str, model: Any, test: Any, validation: Any, n_poems: int, record: Record) -> float:
    """One row: bits and perplexity on the test poems, the share of generated poems in form, seconds of the fit."""
    bits = model.bits_per_character(test)
    poems = model.sample(50, n_poems, exclude="<unknown>", random_state=1)
    kept = sum(FORM.fullmatch(poem) is not None for poem in poems) / n_poems
    phrases = [phrase for poem in poems for phrase in re.split("[，。]", poem)[:-1]]
    fives = sum(len(phrase) == 5 for phrase in phrases) / max(1, len(phrases))
    valid, perplexity = model.bits_per_character(validation), model.perplexity(test)
    cells = {"model": name, "validation, bits per character": valid, "test, bits per character": bits}
    cells |= {"perplexity": perplexity, "poems in form": kept, "phrases of five": fives}
    cells |= {"numbers": int(model.n_parameters_), "fit, s": model.fit_seconds_}
    record.value("poems held out", **cells)
    print(
        f"{name:12} {valid:7.3f} {bits:7.3f} {perplexity:8.1f} "
        f"{100 * kept:7.0f} % {100 * fives:7.0f} % {model.n_parameters_:9d} {model.fit_seconds_:7.0f} s",
        flush=True,
    )
    return bits


def main() -> None:
    """Fit, score on held-out poems, and look at what is written."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", default="mle,ensemble,meanfield")
    parser.add_argument("--smoke", action="store_true")
    add_options(parser)
    given = parser.parse_args()
    train, valid, test = (ps.datasets.tang_poems("wuyan", part) for part in ("train", "valid", "test"))
    if given.smoke:
        train, valid, test = train[:60], valid[:10], test[:10]
    words = ps.Vocabulary.from_sequences(train, min_count=2, end="<end>")
    data, validation, held_out = (ps.sequences(part, vocabulary=words) for part in (train, valid, test))
    n_poems = 10 if given.smoke else 200
    record = Record(
        "text",
        "Tang poems: character networks beside a trigram model",
        "Bits per character on poems held out, the ends of poems included, lower is better; the share of "
        f"{n_poems} generated poems that keep the form, and of their phrases that have five characters.",
        given,
    )
    print(f"{len(train)} poems, {len(words)} tokens; bits per character on {len(test)} poems")
    print(f"{'':12} {'valid':>7} {'test':>7} {'perplex.':>8} {'in form':>9} {'fives':>9} {'numbers':>9} {'fit':>9}")
    trigram = ps.MarkovChain(2, "kneser_ney", random_state=0).fit(data)
    baseline = report("trigram", trigram, held_out, validation, n_poems, record)
    networks, written = candidates(given.smoke), []
    for name in given.models.split(","):
        started = time.perf_counter()
        model = networks[name]
        model.fit(data) if name == "meanfield" else model.fit(data, validation=validation)
        bits = report(name, model, held_out, validation, n_poems, record)
        written.append((name, model, bits, time.perf_counter() - started))
    for name, model, bits, seconds in written:
        print(f"\n{name}: {baseline - bits:+.3f} bits better than the trigram, {seconds:.0f} s in all")
        for poem in model.sample(50, 3, exclude="<unknown>", temperature=0.7, random_state=2):
            print("   ", poem)
        text, nats = model.sample(18, history="春眠不覺曉，", beams=20, exclude="<unknown>", log_prob=True)
        print(f"    春眠不覺曉，{text}   (the most probable that 20 beams find, {float(nats):.1f} nats)")
    record.finish()


if __name__ == "__main__":
    main()
