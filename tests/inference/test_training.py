"""Training: a stopped one goes on bit for bit, schedules, callbacks, precision, several processes."""

import math
import multiprocessing
import os
import signal
import warnings

import pytest
import torch

import probseq as ps
from probseq.distributions.emissions import Normal
from probseq.errors import DataWarning, ParameterError
from probseq.inference.callbacks import TrainingRecord
from probseq.inference.normal_weights import NormalWeights
from probseq.inference.options import TrainingOptions
from probseq.inference.rounds import Rounds
from probseq.inference.schedules import Schedule, make_optimizer
from probseq.inference.streams import Streams, mini_batches
from probseq.inference.training import train, train_point
from probseq.inference.weights import PointWeights
from probseq.inference.windows import MiniBatches, Windows, whole_sequences
from probseq.models.base import Batch
from probseq.models.recurrent import RecurrentModel
from probseq.models.recurrent_noise import Dropout


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def series(lengths=(40, 25, 31, 17, 38, 22), seed=1, dtype=torch.float32):
    x = torch.randn(len(lengths), max(lengths), 1, generator=seeded(seed), dtype=torch.float64).cumsum(1).to(dtype)
    lengths = torch.tensor(lengths)
    seen = (torch.arange(x.shape[1]) < lengths.unsqueeze(-1)).unsqueeze(-1)
    return Batch(torch.where(seen, x, 0.0), seen, lengths)


def net(hidden_size=4, cell="gru", **options):
    emission = Normal()
    return RecurrentModel(emission, emission.observation(1), cell, hidden_size, **options)


def normal_law(model):
    m = model.n_parameters
    mean = 0.1 * torch.randn(m, generator=seeded(7))
    return NormalWeights(mean, torch.full((m,), -3.0), torch.zeros(m), torch.ones(m))


@pytest.fixture
def short_rounds(monkeypatch):
    """Rounds of a few steps, so that short trainings have many."""
    monkeypatch.setattr("probseq.inference.rounds._FEWEST_STEPS", 4)


class KilledError(Exception):
    pass


class Kill:
    """Ends the process, as far as a test can, in a given round."""

    def __init__(self, at):
        self.rounds_left = at

    def on_epoch_end(self, record):
        self.rounds_left -= 1
        if not self.rounds_left:
            raise KilledError


def outcome(options, folder=None, kill=None, seed=5, law=None, data=None, dropout=0.0):
    """Weights, trace and the state of the generator after a training."""
    model = net(dropout=Dropout(dropout, dropout), n_layers=2 if dropout else 1)
    batch, held = series(), whole_sequences(series(seed=2))
    law = normal_law(model) if law is None else law
    kept = {} if folder is None else {"checkpoint": folder, "checkpoint_seconds": 0, "resume": True}
    settings = TrainingOptions(**options, **kept, callbacks=[Kill(kill)] if kill else [], device="cpu")
    generator = seeded(seed)
    data = mini_batches(batch, batch.seen, None, settings) if data is None else data(batch)
    done = train(model, law, data, generator, settings, validation=held)
    return law.state_dict(), done, generator.get_state()


def assert_same(first, second):
    assert first[0].keys() == second[0].keys()
    assert all(torch.equal(value, second[0][name]) for name, value in first[0].items())
    assert first[1] == second[1]
    assert torch.equal(first[2], second[2])


PLANS = {
    "windows": {"max_epochs": 8, "batch_size": 4, "window": 20, "learning_rate": 1e-2},
    "streams": {"max_epochs": 6, "batch_size": 4, "window": 8, "carry_state": True, "learning_rate": 1e-2},
    "plateau": {"max_epochs": 16, "batch_size": 4, "schedule": "plateau", "warmup": 0.1, "learning_rate": 3e-2},
    "momentum": {"max_epochs": 16, "batch_size": 4, "optimizer": "sgd", "momentum": 0.9, "learning_rate": 1e-2},
}


@pytest.mark.usefixtures("short_rounds")
@pytest.mark.parametrize("plan", PLANS)
def test_a_training_that_was_killed_goes_on_as_if_it_had_not_been(plan, tmp_path):
    whole = outcome(PLANS[plan], dropout=0.2)
    with pytest.raises(KilledError):
        outcome(PLANS[plan], tmp_path, kill=3, dropout=0.2)
    assert [file.name for file in tmp_path.iterdir()] == ["last.ckpt"]
    with pytest.raises(KilledError):
        outcome(PLANS[plan], tmp_path, kill=2, dropout=0.2)
    assert_same(outcome(PLANS[plan], tmp_path, dropout=0.2), whole)
    # What has ended is only read.
    assert_same(outcome(PLANS[plan], tmp_path, dropout=0.2), whole)


class Vanish:
    """Ends the process for good in the fourth round."""

    def __init__(self):
        self.told = 0

    def on_epoch_end(self, record):
        self.told += 1
        if self.told == 4:
            os.kill(os.getpid(), signal.SIGKILL)


def point(**options):
    settings = TrainingOptions(max_epochs=16, batch_size=4, learning_rate=1e-2, device="cpu", **options)
    return train_point(net(), series(), seeded(), settings)


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
@pytest.mark.usefixtures("short_rounds")
def test_a_process_that_was_killed_is_no_loss(tmp_path):
    kept = {"checkpoint": tmp_path, "checkpoint_seconds": 0.0, "resume": True}
    process = multiprocessing.get_context("fork").Process(target=point, kwargs={**kept, "callbacks": [Vanish()]})
    process.start()
    process.join(60)
    assert process.exitcode == -signal.SIGKILL
    watch = Watch()
    again, whole = point(**kept, callbacks=[watch]), point()
    assert watch.records[0].step == 16
    assert torch.equal(again.params["weights"], whole.params["weights"])
    assert (again.log_prob, again.trace.tolist()) == (whole.log_prob, whole.trace.tolist())


def test_a_killed_training_goes_on_within_a_pass(tmp_path, monkeypatch):
    monkeypatch.setattr("probseq.inference.rounds._MOST_STEPS", 7)
    options = {
        "max_epochs": 3,
        "batch_size": 2,
        "window": 3,
        "carry_state": True,
        "learning_rate": 1e-3,
        "patience": 1.0,
    }
    batch = series()
    rounds = Rounds(Streams(batch, batch.seen, None, 3), TrainingOptions(**options), seeded())
    assert rounds.parts > 3
    whole = outcome(options)
    assert len(whole[1].trace) == 3 * rounds.parts
    with pytest.raises(KilledError):
        outcome(options, tmp_path, kill=3 + rounds.parts)
    assert_same(outcome(options, tmp_path), whole)


@pytest.mark.usefixtures("short_rounds")
def test_early_stopping_and_a_finished_training_are_remembered(tmp_path):
    options = {"max_epochs": 400, "batch_size": 6, "learning_rate": 0.5, "patience": 0.01}
    whole = outcome(options)
    assert whole[1].status == "converged"
    with pytest.raises(KilledError):
        outcome(options, tmp_path, kill=len(whole[1].trace) - 2)
    assert_same(outcome(options, tmp_path), whole)
    assert_same(outcome(options, tmp_path), whole)


def test_resuming_another_training_is_an_error(tmp_path):
    outcome({"max_epochs": 2}, tmp_path)
    with pytest.raises(ParameterError, match="checkpoint of a training with"):
        outcome({"max_epochs": 3}, tmp_path)
    with pytest.warns(DataWarning, match="another random_state"):
        outcome({"max_epochs": 2}, tmp_path, seed=6)


class Watch:
    def __init__(self, answer=None):
        self.records, self.answer = [], answer

    def on_epoch_end(self, record):
        self.records.append(record)
        return self.answer and len(self.records) == self.answer


def rates(**options):
    """Learning rates at the ends of rounds, and the records."""
    model, batch = net(), series()
    law = PointWeights(normal_law(model).mean.detach())
    watch = Watch()
    settings = TrainingOptions(batch_size=6, callbacks=[watch], **options)
    train(model, law, Windows(batch, batch.seen), seeded(), settings)
    return [record.learning_rate for record in watch.records], watch.records


def test_a_callback_sees_every_round_and_can_stop():
    watch = Watch(answer=2)
    model, batch = net(), series()
    settings = TrainingOptions(max_epochs=100, batch_size=6, callbacks=[watch], learning_rate=1e-2)
    law = normal_law(model)
    done = train(model, law, Windows(batch, batch.seen), seeded(), settings, validation=whole_sequences(batch))
    assert done.status == "stopped"
    assert (len(done.trace), done.n_epochs) == (2, 50)
    last = watch.records[-1]
    assert isinstance(last, TrainingRecord)
    assert last.train == done.trace[-1]
    assert (last.epoch, last.max_epochs, last.step) == (50, 100, 50)
    assert (last.validation, last.best) == (done.validation[-1], max(done.validation))


def test_what_is_no_callback_is_named():
    with pytest.raises(ParameterError, match="on_epoch_end"):
        TrainingOptions(callbacks=[print])


def test_max_epochs_is_kept_to():
    _, records = rates(max_epochs=60)
    assert [record.epoch for record in records] == [25, 50, 60]
    assert records[-1].step == 60


@pytest.mark.usefixtures("short_rounds")
def test_the_cosine_falls_to_zero_after_the_warmup():
    schedule = Schedule(TrainingOptions(warmup=0.2), 10)
    steps = [schedule.factor(i / 100, 0.01) for i in range(100)]
    assert steps[:3] == pytest.approx([0.05, 0.1, 0.15])
    assert steps[19:21] == pytest.approx([1.0, 1.0])
    assert steps[60] == pytest.approx(0.5)
    assert steps[-1] == pytest.approx(0.5 * (1 + math.cos(math.pi * 79 / 80)))
    found, _ = rates(max_epochs=20, learning_rate=0.1)
    assert found[-1] == pytest.approx(0.05 * (1 + math.cos(math.pi * 0.95)))
    assert rates(max_epochs=20, schedule="constant", learning_rate=0.1)[0] == [0.1] * 5


def test_a_plateau_halves_the_rate():
    schedule = Schedule(TrainingOptions(schedule="plateau", patience=0.2), 100)
    factors = []
    for score in [1.0, 2.0, *[1.5] * 12, 3.0, 2.0]:
        schedule.look(score, 0.5)
        factors.append(schedule.factor(0.5, 0.01))
    # A quarter of the patience is 5 rounds: the sixth without a better score halves.
    assert factors == [1.0] * 7 + [0.5] * 6 + [0.25] * 3


@pytest.mark.parametrize("name", ["adam", "adamw", "rmsprop", "sgd"])
def test_every_optimizer_learns(name):
    model, batch = net(dtype=torch.float64), series(dtype=torch.float64)
    law = PointWeights(model._initial_guess(batch, seeded())["weights"])
    momentum = 0.9 if name == "sgd" else 0.0
    settings = TrainingOptions(max_epochs=40, optimizer=name, learning_rate=1e-2, momentum=momentum, weight_decay=1e-4)
    assert type(make_optimizer(settings, law.parameters())).__name__.lower() == name
    trace = train(model, law, Windows(batch, batch.seen), seeded(), settings).trace
    assert trace[-1] > trace[0] + 0.1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"optimizer": "lbfgs"}, 'optimizer=.*"adam" or "adamw"'),
        ({"schedule": "step"}, 'schedule=.*"plateau"'),
        ({"precision": "8"}, "precision='8'"),
        ({"warmup": 1.0}, "warmup=1.0"),
        ({"momentum": 0.9}, "Adam has its own"),
        ({"carry_state": 0}, "carry_state=0"),
        ({"context": -1}, "context=-1"),
        ({"gradient_clip": 0.0}, "gradient_clip"),
        ({"weight_decay": -1.0}, "weight_decay"),
        ({"resume": True}, 'checkpoint="folder"'),
    ],
)
def test_bad_options_are_named(options, message):
    with pytest.raises(ParameterError, match=message):
        TrainingOptions(**options)


def test_options_without_numbers_take_those_of_the_inference():
    options = TrainingOptions(max_epochs=3).completed(learning_rate=0.2, validation_fraction=0.1)
    assert (options.learning_rate, options.validation_fraction, options.max_epochs) == (0.2, 0.1, 3)
    given = TrainingOptions(learning_rate=0.3, validation_fraction=0.0)
    assert given.completed(learning_rate=0.2, validation_fraction=0.1) == given


@pytest.mark.parametrize("cell", ["lstm", "gru"])
def test_half_precision_stays_close(cell):
    model, batch = net(cell=cell), series()
    traces = []
    for precision in ("32", "bf16"):
        law = PointWeights(model._initial_guess(batch, seeded())["weights"])
        settings = TrainingOptions(max_epochs=25, precision=precision, device="cpu", learning_rate=1e-2)
        traces.append(train(model, law, Windows(batch, batch.seen), seeded(), settings).trace)
        assert law.flat.dtype == torch.float32
    assert traces[0] != traces[1]
    assert traces[1] == pytest.approx(traces[0], abs=0.05)


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
@pytest.mark.parametrize("plan", [{}, {"carry_state": True, "window": 10}])
def test_two_processes_are_one_with_the_whole_mini_batch(plan):
    model, batch = net(dtype=torch.float64), series(dtype=torch.float64)
    found = []
    for several in ({}, {"devices": 2, "strategy": "ddp_fork"}):
        law = normal_law(model).double()
        settings = TrainingOptions(max_epochs=3, batch_size=4, device="cpu", learning_rate=1e-2, **several, **plan)
        data = mini_batches(batch, batch.seen, None, settings)
        done = train(model, law, data, seeded(), settings, validation=whole_sequences(batch))
        found.append((law.state_dict(), done))
    for name, value in found[0][0].items():
        torch.testing.assert_close(found[1][0][name], value, rtol=1e-9, atol=1e-9)
    assert found[1][1].trace == pytest.approx(found[0][1].trace, abs=1e-9)
    assert found[1][1].validation == pytest.approx(found[0][1].validation, abs=1e-9)


def test_a_saved_network_leaves_out_what_belongs_to_the_run(tmp_path):
    training = ps.TrainingOptions(max_epochs=2, checkpoint=tmp_path, resume=True, callbacks=[Watch()], batch_size=7)
    y = series().x[0, :, 0].numpy()
    fitted = ps.LSTM(2, inference=ps.MeanField(n_draws=2, training=training), random_state=0).fit(y)
    fitted.save(tmp_path / "net")
    loaded = ps.load(tmp_path / "net")
    assert loaded.inference.training == ps.TrainingOptions(max_epochs=2, batch_size=7)
    assert float(loaded.log_prob(y)) == float(fitted.log_prob(y))


def test_the_bar_shows_nats_per_value(capsys):
    model, batch = net(), series()
    law = normal_law(model)
    settings = TrainingOptions(max_epochs=30, verbose=True)
    done = train(model, law, Windows(batch, batch.seen), seeded(), settings, validation=whole_sequences(batch))
    shown = capsys.readouterr().out
    assert f"{done.trace[-1]:.4f} nats per value" in " ".join(shown.split())
    assert "30/30" in shown


def test_data_from_elsewhere_train_a_network():
    """Anything that comes in mini-batches will do, such as chunks of a file."""
    model, batch = net(), series()

    class Chunks:
        n_values, n_windows, window = float(batch.seen.sum()), 2, 40

        def n_batches(self, batch_size):
            return 2

        def passing(self, batch_size, generator):
            for first in (0, 3):
                part = Batch(
                    batch.x[first : first + 3], batch.seen[first : first + 3], batch.lengths[first : first + 3]
                )
                yield whole_sequences(part)._replace(share=torch.tensor(0.5))

    assert isinstance(Chunks(), MiniBatches)

    law = normal_law(model)
    done = train(model, law, Chunks(), seeded(), TrainingOptions(max_epochs=36, learning_rate=1e-2))
    assert done.trace[-1] > done.trace[0] + 0.1
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        train(model, law, Chunks(), seeded(), TrainingOptions(max_epochs=1))
