"""The script of the page on which labels are reviewed: what keys do, and that what it writes are decisions."""

import shutil
import subprocess
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from stages.auditing import page
from stages.images.dataset import Dataset
from stages.images.decisions import records
from tests.test_audit import row
from tests.toys import toy_index

NODE = shutil.which("node")
CLASSES = ("cat", 'a "dog"</script>', "b\u2028d")
BROWSER = """
const html = require("fs").readFileSync(0, "utf8"), heard = {}, ids = {};
let written = "";
class Element {
  constructor(dataset = {}) { Object.assign(this, { dataset, value: "", offsetTop: 0, tagName: "FIGURE" }); }
  addEventListener(name, does) { this[name] = does; }
  querySelector() { return {}; }
  setAttribute() {} removeAttribute() {} focus() {} scrollIntoView() {} add() {} click() {}
}
const plain = text => text.replace(/&#34;/g, '"').replace(/&lt;/g, "<").replace(/&gt;/g, ">");
const found = [...html.matchAll(/data-pixels="([^"]*)" data-label="([^"]*)" data-to="([^"]*)"/g)];
const figures = found.map(([, pixels, label, to]) => new Element({ pixels, label: plain(label), to: plain(to) }));
global.Blob = class { constructor(parts) { written = parts.join(""); } };
global.URL = { createObjectURL: () => "" };
global.Option = class {};
global.window = new Element();
global.document = {
  documentElement: { style: {} },
  querySelectorAll: what => what === "figure" ? figures : [],
  getElementById: name => ids[name] ??= new Element(),
  addEventListener: (name, does) => heard[name] = does,
  createElement: () => new Element(),
};
(0, eval)(html.match(/<script>([^]*)<\\/script>/)[1]);
for (const key of process.argv[1]) {
  const event = { key: key.toLowerCase(), repeat: key !== key.toLowerCase(), target: figures[0], preventDefault() {} };
  heard.keydown(event);
}
ids.reviewer.value = "\\u00c4na ";
ids.download.click();
process.stdout.write(written);
"""
"""What of a browser the page asks for. A capital letter is a key that is still held down."""


@pytest.mark.skipif(NODE is None, reason="needs Node.js")
def test_what_keys_decide_is_written_as_decisions_and_a_held_key_decides_once(tmp_path: Path) -> None:
    assert NODE
    dataset = Dataset.write(
        tmp_path, np.zeros((4, 8, 8, 3), np.uint8), toy_index(np.arange(4) % 3, np.array([0, 1, 0, -1])), CLASSES
    )
    rows = [row(row=n, pixels=f"{n:064x}", label=CLASSES[n % 3], suggested=CLASSES[(n + 1) % 3]) for n in range(4)]
    told = {"cuts": {}, "flags": {}, "noise_rate": 0.05, "training_images": 3, "test_scores": {}}
    html = page.html(pa.Table.from_pylist(rows), told, dataset)
    done = subprocess.run([NODE, "-e", BROWSER, "rRRkdDDuddu"], input=html, capture_output=True, text=True, check=True)
    (tmp_path / "decisions.jsonl").write_text(done.stdout, encoding="utf-8")
    found = [(each.pixels, each.action, each.label, each.to) for each in records.read(tmp_path / "decisions.jsonl")]
    assert found == [
        (f"{0:064x}", "relabel", CLASSES[0], CLASSES[1]),
        (f"{1:064x}", "keep", CLASSES[1], None),
        (f"{2:064x}", "drop", CLASSES[2], None),
    ]
    assert "\u00c4na" in done.stdout
