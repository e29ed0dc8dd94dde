import os
import shutil

import pytest

import harness


class World:
    """A small made-up world: its data, and two models trained on it."""

    def __init__(self, directory):
        self.directory = directory
        # faiss builds its graph on libgomp's threads, whose locks ThreadSanitizer cannot see; the daemon is what is tested
        self.environment = {**os.environ, **harness.sanitizer_option("TSAN_OPTIONS", "report_bugs=0")}
        self.data = directory / "data"
        harness.run(harness.TRAIN, "synth", self.data, "--users", 300, "--items", 1500, "--events", 12000, "--seed", 3)
        self.model_a = self.fit("a", "seed=1")
        self.model_b = self.fit("b", "seed=2")

    def fit(self, name, *sets, config=None):
        output = self.directory / name
        arguments = ["fit", config or self.data / "train.yaml", "--set", f"output.dir={output}", "--set", "optimizer.epochs=2"]
        for text in sets:
            arguments += ["--set", text]
        harness.run(harness.TRAIN, *arguments, env=self.environment)
        return (output / "current").resolve()


@pytest.fixture(scope="session")
def world(tmp_path_factory):
    return World(tmp_path_factory.mktemp("world"))


@pytest.fixture
def start(tmp_path):
    """A function that starts a daemon which ends with the test."""
    daemons = []

    def start_daemon(*arguments, **more):
        daemon = harness.Daemon(tmp_path, *arguments, **more)
        daemons.append(daemon)
        return daemon

    yield start_daemon
    for daemon in daemons:
        daemon.stop()


@pytest.fixture
def serve(start):
    """The same with a bundle on a free port of the loopback."""
    return lambda bundle, *more, **options: start("--bundle", bundle, "--listen", "127.0.0.1:0", *more, **options)


@pytest.fixture(scope="session")
def server(world, tmp_path_factory):
    """One daemon with model A, for tests that only ask."""
    daemon = harness.Daemon(tmp_path_factory.mktemp("server"), "--bundle", world.model_a, "--listen", "127.0.0.1:0",
                            "--workers", 2)
    yield daemon
    daemon.stop()


class Link:
    """models/current of a test: a link that can be pointed elsewhere in one step."""

    def __init__(self, directory):
        self.directory = directory
        self.path = directory / "current"

    def __str__(self):
        return str(self.path)

    def point(self, target):
        fresh = self.directory / "current.new"
        fresh.symlink_to(target)
        os.replace(fresh, self.path)

    def copy(self, bundle, name):
        target = self.directory / name
        shutil.rmtree(target, ignore_errors=True)
        shutil.copytree(bundle, target)
        return target


@pytest.fixture
def link(tmp_path):
    directory = tmp_path / "models"
    directory.mkdir()
    return Link(directory)
