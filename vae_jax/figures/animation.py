"""Pictures that move: traversals and interpolations as GIF, every setting and latent in one frame."""

import dataclasses
import io
from collections.abc import Sequence

import numpy as np

from vae_jax.evaluation import queries
from vae_jax.figures import images, placement, style
from vae_jax.figures.run_directory import Directory

DPI = 100
TILE = 0.75  # inches of a picture
MILLISECONDS = 110  # of a frame; the ends stand longer
LATENTS = 6  # traversals of a setting
WHITE = 0  # its place in the palette


@dataclasses.dataclass(frozen=True)
class Animation:
    """Rows of pictures that move together, to the end and back.

    Attributes:
      title: above all frames.
      rows: (label, colour) of each.
      columns: what stands above each column of pictures.
      frames: [steps, rows, columns, height, width, channels] in [0, 1].
    """

    title: str
    rows: Sequence[tuple[str, object]]
    columns: Sequence[str]
    frames: np.ndarray

    def save(self, file: io.BufferedIOBase) -> None:
        """Write the GIF: the page is drawn once, and each frame's pictures are pasted into it."""
        page, boxes = self._page()
        there = [self._frame(page, boxes, pictures) for pictures in self.frames]
        frames = [*there, *there[-2:0:-1]]
        times = [4 * MILLISECONDS if frame in (there[0], there[-1]) else MILLISECONDS for frame in frames]
        palette = self._palette()
        indexed = [self._indexed(frame, palette) for frame in frames]
        indexed[0].save(file, format="GIF", save_all=True, append_images=indexed[1:], duration=times, loop=0)

    @staticmethod
    def _indexed(frame, palette):
        """A frame in the colours of the palette; white exactly, for which Pillow's search takes what is near it."""
        from PIL import Image

        indexed = frame.quantize(palette=palette, dither=Image.Dither.NONE)
        indexed.paste(WHITE, mask=Image.fromarray((np.asarray(frame) == 255).all(axis=-1)))
        return indexed

    def _palette(self):
        """White, and 254 more colours for all frames: those of the pictures, and the tones of the text."""
        from PIL import Image

        picture = (
            np.round(255 * np.clip(self.frames, 0, 1))
            .astype(np.uint8)
            .reshape(-1, self.frames.shape[-2], self.frames.shape[-1])
        )
        tiles = Image.fromarray(picture[..., 0] if picture.shape[-1] == 1 else picture).convert("RGB").quantize(191)
        inks = np.array([(0, 0, 0), *(style.ink(color) for _, color in self.rows)])
        tones = np.concatenate([255 * (1 - share * (1 - inks)) for share in np.linspace(0, 1, 63 // len(inks))])
        colors = [255, 255, 255, *(tiles.getpalette() or [])[: 3 * 191], *tones.round().astype(int).ravel().tolist()]
        palette = Image.new("P", (1, 1))
        palette.putpalette(colors)
        return palette

    def _page(self):
        """The page without pictures as an image, and the box (left, top, right, bottom) of every picture in it."""
        from PIL import Image

        height, width = self.frames.shape[3:5]
        rows, columns = len(self.rows), len(self.columns)
        tall = TILE * height / width
        size = max(columns * TILE + 1.6, 4.5), rows * (tall + 0.04) + 1.0
        figure = style.new_figure(*size, self.title, "compressed")
        grid = [
            [figure.add_subplot(rows, columns, row * columns + column + 1) for column in range(columns)]
            for row in range(rows)
        ]
        for (label, color), line in zip(self.rows, grid, strict=True):
            for axes in line:
                style.show(axes, np.ones((height, width, 1)))
            text = style.wrapped(label, 1.5, style.TEXT)
            line[0].set_ylabel(text, rotation=0, ha="right", va="center", color=style.ink(color), fontsize=style.TEXT)
        for text, axes in zip(self.columns, grid[0], strict=True):
            axes.set_title(text, fontsize=style.SMALL)
        figure.set_dpi(DPI)
        style.settle(figure)
        renderer = placement.renderer_of(figure)
        figure.draw(renderer)
        page = Image.fromarray(np.asarray(renderer.buffer_rgba())[..., :3].copy())
        boxes = []
        for line in grid:
            for axes in line:
                extent = axes.get_window_extent()
                top = page.height - extent.y1
                boxes.append(tuple(round(at) for at in (extent.x0, top, extent.x1, top + extent.height)))
        return page, boxes

    def _frame(self, page, boxes: Sequence[tuple], pictures: np.ndarray):
        """The page with one step's pictures in their places."""
        from PIL import Image

        frame = page.copy()
        for (left, top, right, bottom), picture in zip(boxes, pictures.reshape(-1, *pictures.shape[2:]), strict=True):
            pixels = np.round(255 * np.clip(picture, 0, 1)).astype(np.uint8)
            tile = Image.fromarray(pixels[..., 0] if pixels.shape[-1] == 1 else pixels).convert("RGB")
            frame.paste(tile.resize((right - left, bottom - top), Image.Resampling.NEAREST), (left, top))
        return frame


def traversals(directory: Directory) -> Animation | None:
    """One latent moved in each column, those of most effect first; a row for each setting."""
    shown = directory.pair("traversals")
    if not shown:
        return None
    rows = [images.moved(panel.arrays)[:LATENTS] for panel in shown.panels]
    count = min(len(row) for row in rows)
    frames = np.stack([np.stack([pictures for _, _, pictures in row[:count]], axis=1) for row in rows], axis=1)
    columns = [f"{number + 1}" for number in range(count)]
    labels = [(panel.setting.label, panel.setting.color) for panel in shown.panels]
    title = shown.titled("One latent moved in each column, by effect")
    return Animation(title, labels, columns, frames)


def interpolations(directory: Directory) -> Animation | None:
    """From one test image to another, a column for each pair; a row for each setting."""
    shown = directory.pair("interpolations")
    panels = [panel for panel in shown.panels if panel.row.get("seed") == shown.panels[0].row.get("seed")]
    if not panels:
        return None
    pairs = images.unlike_pairs(panels[0].arrays, len(panels[0].arrays["interpolations"]) // queries.STEPS)
    rows = [
        np.stack(
            [panel.arrays["interpolations"][pair * queries.STEPS : (pair + 1) * queries.STEPS] for pair in pairs], axis=1
        )
        for panel in panels
    ]
    labels = [(panel.setting.label, panel.setting.color) for panel in panels]
    title = shown.titled("Decoder means along the line between two codes")
    return Animation(title, labels, [f"pair {number + 1}" for number in range(len(pairs))], np.stack(rows, axis=1))
