"""The report as a page: fit and eval write it beside their JSON, `recall-train report` draws it."""

import html.parser
import json
import re

import pytest

from train_tools import bundles, fit, make_data, split_last, train

SECTIONS = ["watch", "quality", "training", "vectors", "index", "model", "config"]
VOID = {"meta", "br", "hr", "img", "input", "link"}


class Page(html.parser.HTMLParser):
    """A strict reader: every element is closed, in order; nothing is fetched from anywhere; no script."""

    def __init__(self, text):
        super().__init__()
        self.open, self.ids, self.text, self.links = [], [], [], []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attributes):
        assert tag not in {"script", "link", "img", "iframe", "object", "embed", "base", "form"}
        names = [name for name, _ in attributes]
        assert len(names) == len(set(names))
        for name, value in attributes:
            assert name not in {"src", "srcset", "action", "background", "data"} and not name.startswith("on")
            assert name not in {"href", "xlink:href"} or re.fullmatch(r"#[a-z]+", value)
            if name == "id":
                self.ids.append(value)
            if name == "href":
                self.links.append(value[1:])
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        assert tag in {"path", "circle", "rect"}
        self.handle_starttag(tag, attributes)
        self.open.pop()

    def handle_endtag(self, tag):
        assert self.open and self.open.pop() == tag

    def handle_data(self, data):
        self.text.append(data)


def read(path):
    text = path.read_text(encoding="utf-8", errors="strict") if hasattr(path, "read_text") else path
    page = Page(text)
    assert not re.search(r"https?:|url\(|@import|//[a-z]", text.split("<pre>")[0])
    assert len(page.ids) == len(set(page.ids)) and set(page.links) <= set(page.ids)
    return page


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return make_data(tmp_path_factory.mktemp("report") / "data")


@pytest.fixture(scope="module")
def fitted(data, tmp_path_factory):
    """One fit with its report and an early stop: (models, directory of the report)."""
    directory = tmp_path_factory.mktemp("fitted")
    fit(data, directory / "models", "--report", directory / "report.json", epochs=3,
        optimizer__early_stop="{metric: recall@20, patience: 3}")
    return directory / "models", directory


def test_page_of_fit(fitted):
    page = read(fitted[1] / "report.html")
    assert set(SECTIONS) <= set(page.ids)
    text = "".join(page.text)
    report = json.loads((fitted[1] / "report.json").read_text())
    assert f"{100 * report['metrics']['recall@20']:.1f} %" in text
    assert report["model"] in text and "Validation recall@20" in text and "Item vectors on a plane" in text
    assert "batch_size" in text  # of the configuration


def test_members_for_the_page(fitted):
    report = json.loads((fitted[1] / "report.json").read_text())
    assert len(report["projection"]["points"]) == report["data"]["items"]
    assert sum(report["histogram"]["positives"]["counts"]) == report["data"]["test"]
    assert report["index"]["curve"][-1]["recall"] > 0.9
    manifest = json.loads((fitted[0] / "current" / "manifest.json").read_text())
    assert report["bundle"].endswith(report["model"])
    assert [report["model"], report["created"]] == [manifest["version"], manifest["created"]]


def test_bundles_have_no_other_files(data, fitted, tmp_path):
    """What the manifest does not list is not checked, so there is no such thing, with and without --report."""
    fit(data, tmp_path / "models", epochs=1)
    train("index", tmp_path / "models" / "current", "--engine", "flat")
    for bundle in bundles(fitted[0]) + bundles(tmp_path / "models"):
        files = {str(path.relative_to(bundle)) for path in bundle.rglob("*") if path.is_file()}
        assert files == {"manifest.json"} | set(json.loads((bundle / "manifest.json").read_text())["files"])


def test_page_is_a_function_of_the_json(fitted, tmp_path):
    expected = (fitted[1] / "report.html").read_text()
    assert train("report", fitted[1] / "report.json").stdout == expected
    train("report", fitted[1] / "report.json", "--output", tmp_path / "page.html")
    assert (tmp_path / "page.html").read_text() == expected


def test_page_of_a_bundle(fitted):
    """Its manifest is what there is."""
    page = read(train("report", fitted[0] / "current").stdout)
    assert {"quality", "training", "index", "model", "config"} <= set(page.ids) and "vectors" not in page.ids
    assert (fitted[0] / "current").resolve().name in "".join(page.text)


def test_page_of_eval(data, fitted, tmp_path):
    split_last(data, tmp_path / "seen.csv", tmp_path / "test.csv")
    train("eval", fitted[0] / "current", "--test", tmp_path / "test.csv", "--exclude", tmp_path / "seen.csv", "--report",
          tmp_path / "eval.json")
    page = read(tmp_path / "eval.html")
    assert "quality" in page.ids and "training" not in page.ids


def test_hostile_data(tmp_path):
    """Ids, categories and names that try to be HTML stay text."""
    evil = ["<script>alert(1)</script>", "\"><img src=x onerror=alert(1)>", "</title></svg><b>", "' onmouseover='x",
            "x" * 200, "&lt;b&gt;", "日本語 <i>"]
    with open(tmp_path / "items.csv", "w") as items:
        print("item_id,category", file=items)
        for i in range(40):
            print('"' + f"{i}{evil[i % len(evil)]}".replace('"', '""') + '","' + evil[i % 5].replace('"', '""') + '"',
                  file=items)
    with open(tmp_path / "clicks.csv", "w") as clicks:
        print("user_id,item_id,ts", file=clicks)
        for i in range(600):
            print(f'{i % 30},"' + f"{i * 7 % 40}{evil[i * 7 % 40 % len(evil)]}".replace('"', '""') + f'",{i}', file=clicks)
    (tmp_path / "train.yaml").write_text("""# <script>alert("comment")</script>
data:
  items: {path: items.csv, id: item_id}
  events: {path: clicks.csv, user: user_id, item: item_id, time: ts}
  split: {method: leave_last, n: 1}
user_tower: {features: [{name: user_id, type: id, dim: 8}], network: {type: none}}
item_tower: {features: [{name: item_id, type: id, dim: 8}, {name: category, type: categorical, dim: 8}],
             network: {type: mlp, layers: [8]}}
loss: {type: softmax, temperature: 0.1}
optimizer: {epochs: 1, batch_size: 64}
index: {engine: flat}
""")
    fit(tmp_path, tmp_path / "models", "--report", tmp_path / "report.json", epochs=1)
    text = (tmp_path / "report.html").read_text()
    page = read(tmp_path / "report.html")
    assert "alert(1)" in "".join(page.text) and "<script" not in text and "<img" not in text
    assert len(text) < 300000


def test_errors(tmp_path):
    (tmp_path / "broken.json").write_text('{"metrics": {"recall@20": 0.1')
    (tmp_path / "list.json").write_text("[1]")
    for path, words in (("broken.json", "broken.json:1:"), ("list.json", "not an object"), ("nothing.json", "nothing.json"),
                        ("", "manifest.json")):
        done = train("report", tmp_path / path, check=False)
        assert done.returncode == 1 and words in done.stderr and len(done.stderr.splitlines()) == 1
    assert train("report", check=False).returncode == 2
    assert train("report", "a", "b", check=False).returncode == 2
    done = train("report", tmp_path / "list.json", "--format", "pdf", check=False)
    assert done.returncode == 2 and "--format" in done.stderr
