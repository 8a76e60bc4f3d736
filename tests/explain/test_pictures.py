from __future__ import annotations

import base64
import io
import json
import re
import xml.etree.ElementTree as ET

import numpy as np
import pytest
import torch
from nets import images
from PIL import Image

import expunge as ex
from expunge import explain
from expunge.report.figures.maps import maps as figure


def read(uri: str) -> np.ndarray:
    head, _, data = uri.partition(",")
    assert head == "data:image/png;base64"
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(data))))


def test_pictures_hold_images_and_maps() -> None:
    x, heat = images(2, 3, 6, 8), images(2, 6, 8, seed=2)
    rows = explain.pictures(x, {"original": heat, "none": -torch.ones(2, 6, 8)})
    assert json.loads(json.dumps(rows)) == rows
    for i, row in enumerate(rows):
        low, high = x[i].min(), x[i].max()
        expected = ((x[i] - low) / (high - low) * 255).round().permute(1, 2, 0)
        np.testing.assert_array_equal(read(row["image"]), expected.numpy().astype(np.uint8))
        expected = (heat[i].clamp_min(0) / heat[i].max() * 255).round()
        np.testing.assert_array_equal(read(row["maps"]["original"]), expected.numpy().astype(np.uint8))
        assert not read(row["maps"]["none"]).any()


def test_maps_drawn_together_can_be_compared() -> None:
    heat = images(2, 6, 8, seed=2).abs()
    faded = {"before": heat, "after": heat / 4}
    for together, most in ((False, 255), (True, 64)):
        for row in explain.pictures(images(2, 1, 6, 8), faded, together=together):
            assert (read(row["maps"]["before"]).max(), read(row["maps"]["after"]).max()) == (255, most)


def test_large_pictures_are_reduced_and_channels_averaged() -> None:
    (row,) = explain.pictures(images(1, 5, 60, 120), {"a": images(1, 60, 120)}, longest=30)
    assert read(row["image"]).shape == read(row["maps"]["a"]).shape == (15, 30)
    assert len(json.dumps(row)) < 2500
    two = torch.stack([torch.zeros(4, 4), torch.arange(16.0).view(4, 4)])[None]
    np.testing.assert_array_equal(read(explain.pictures(two, {})[0]["image"]), np.arange(16).reshape(4, 4) * 17)


def test_pictures_that_cannot_be() -> None:
    bad = images(1, 6, 8)
    bad[0, 0, 0] = float("inf")
    with pytest.raises(ex.ExpungeError) as caught:
        explain.pictures(images(1, 1, 6, 8), {"a": images(1, 8, 6), "b": bad})
    assert caught.value.problems == [
        "Maps 'a' must have shape (1, 6, 8); got (1, 8, 6).",
        "Maps 'b' hold NaN or infinity, which no picture can show.",
    ]
    with pytest.raises(ex.ExpungeError, match="at least one"):
        explain.pictures(images(0, 1, 6, 8), {})


def parsed(svg: str) -> ET.Element:
    return ET.fromstring(svg.replace("<svg ", '<svg xmlns="http://www.w3.org/2000/svg" ', 1))


def found(root: ET.Element, tag: str) -> list[ET.Element]:
    return [node for node in root.iter() if node.tag.endswith("}" + tag)]


@pytest.fixture
def saved() -> list[dict]:
    return explain.pictures(images(2, 1, 6, 6), {"original": images(2, 6, 6), "salun": images(2, 6, 6, seed=4)})


def drawn(saved: list[dict], **change) -> str:
    columns = list(saved[0]["maps"])
    given = {
        "rows": ["three", "one"],
        "columns": columns,
        "images": [row["image"] for row in saved],
        "heats": [[row["maps"][c] for c in columns] for row in saved],
        **change,
    }
    return figure("look", "where they look", **given)


def test_a_cell_for_each_image_and_model(saved: list[dict]) -> None:
    root = parsed(drawn(saved))
    assert [t.text for t in found(root, "text")][:3] == ["input", "original", "salun"]
    masks, over = found(root, "mask"), found(root, "rect")
    assert [m[0].get("href") for m in masks] == [row["maps"][c] for row in saved for c in ("original", "salun")]
    assert [r.get("mask") for r in over] == [f"url(#{m.get('id')})" for m in masks]
    assert [(r.get("x"), r.get("y")) for r in over] == [(m.get("x"), m.get("y")) for m in masks]
    ids = [node.get("id") for node in root.iter() if node.get("id")]
    assert len(set(ids)) == len(ids)
    assert all(i.startswith("look-") for i in ids)
    under = [image.get("href") for image in root if image.tag.endswith("}image")]
    assert under == [row["image"] for row in saved for _ in range(3)]


def test_colours_are_the_pages(saved: list[dict]) -> None:
    svg = drawn(saved)
    assert set(re.findall(r"var\(--([\w-]+)\)", svg)) == {"ink", "font", "forget"}
    assert re.findall(r"#[0-9a-f]{6}\b", svg) == []


def test_everything_lies_inside(saved: list[dict]) -> None:
    root = parsed(drawn(saved, columns=["a_rather_long_method_name", "b"]))
    _, _, width, height = map(float, root.get("viewBox").split())
    for node in [*found(root, "rect"), *found(root, "image")]:
        x, y, w, h = (float(node.get(k)) for k in ("x", "y", "width", "height"))
        assert x >= 0 <= y
        assert x + w <= width + 0.5
        assert y + h <= height + 0.5
    spots = sorted({float(r.get("x")) for r in found(root, "rect")})
    assert spots[1] - spots[0] > 84


@pytest.mark.parametrize("bad", [None, "", "javascript:alert(1)", 'data:image/png;base64,AA"/><script>', "x.png", 3])
def test_what_is_no_picture_leaves_a_dash(saved: list[dict], bad) -> None:
    root = parsed(drawn(saved, images=[bad, saved[1]["image"]], heats=[[bad, bad], [bad, bad]]))
    assert [t.text for t in found(root, "text")].count("–") == 5
    assert not found(root, "script")
    assert not found(root, "mask")


def test_names_are_escaped(saved: list[dict]) -> None:
    names = ["<b>&amp;</b>", "日本語"]
    assert names[0] in [t.text for t in found(parsed(drawn(saved, rows=names, columns=["$x$", "<i>"])), "text")]
