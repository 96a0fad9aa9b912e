"""Images that a visitor shows: chosen or pasted in the browser, which writes them into addresses; no file is kept."""

from __future__ import annotations

import html
import json
import re
from collections.abc import Sequence

from lmflow_core.api import RequestError

MOST_IMAGES = 16
# Of all images of a message, as they are written into addresses.
MOST_BYTES = 20_000_000
# Nothing in one can be read as HTML.
_ADDRESS = re.compile(r"data:image/(?:png|jpeg|webp|gif|bmp);base64,[A-Za-z0-9+/]+={0,2}")

CHOOSER = """<input type="file" id="picture-file" multiple accept="image/png,image/jpeg,image/webp,image/gif,image/bmp"
 aria-label="Images"> or paste images into the message <span id="picture-shown"></span>"""

# The document listens, as the chooser comes and goes with models that see.
LISTEN = f"""() => {{
    const add = async (files) => {{
        const box = document.querySelector("#pictures textarea");
        const images = JSON.parse(box.value || "[]");
        for (const file of files) images.push(await new Promise((done) => {{
            const reader = new FileReader();
            reader.onload = () => done(reader.result);
            reader.readAsDataURL(file);
        }}));
        const text = JSON.stringify(images);
        if (images.length > {MOST_IMAGES} || text.length > {MOST_BYTES}) {{
            alert("A message takes up to {MOST_IMAGES} images and {MOST_BYTES // 1_000_000} MB of them.");
            return;
        }}
        Object.getOwnPropertyDescriptor(HTMLTextAreaElement.prototype, "value").set.call(box, text);
        box.dispatchEvent(new Event("input", {{bubbles: true}}));
    }};
    document.addEventListener("change", async (event) => {{
        if (event.target.id !== "picture-file") return;
        await add([...event.target.files]);
        event.target.value = "";
    }});
    document.addEventListener("paste", (event) => {{
        const files = [...(event.clipboardData?.files ?? [])].filter((file) => file.type.startsWith("image/"));
        if (!files.length || !document.querySelector("#picture-file")) return;
        event.preventDefault();
        add(files);
    }});
}}"""

PREVIEW = """(text) => {
    const place = document.querySelector("#picture-shown");
    place?.replaceChildren(...JSON.parse(text || "[]").map((source) => {
        const image = document.createElement("img");
        image.src = source;
        image.style.cssText = "height: 4em; display: inline-block; margin: 0 .3em";
        return image;
    }));
}"""


def read_pictures(text: str) -> list[str]:
    """Return the addresses of the images that a page sends.

    Raises:
        RequestError: it is no list of addresses that hold images of the kinds that are shown, or there are too many.
    """
    try:
        images = json.loads(text or "[]")
    except (ValueError, RecursionError):
        images = None
    if not isinstance(images, list) or not all(isinstance(one, str) and _ADDRESS.fullmatch(one) for one in images):
        raise RequestError("an image is of no kind that is shown: choose a PNG, JPEG, WebP, GIF or BMP")
    if len(images) > MOST_IMAGES:
        raise RequestError(f"a message takes up to {MOST_IMAGES} images")
    return images


def check_room(shown: int, more: Sequence[str]) -> None:
    """Check that a conversation that shows some images takes more of them.

    Raises:
        RequestError: it does not: it is kept in memory.
    """
    if shown + len(more) > MOST_IMAGES:
        raise RequestError(f"a conversation shows up to {MOST_IMAGES} images: reset it, or send fewer")


def picture_html(address: str) -> str:
    """Return the element that shows an image."""
    return f'<img src="{html.escape(address)}" alt="image" style="max-height: 16em">'
