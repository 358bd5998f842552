"""Decodes image files in a process of its own, so that every core is used; imports nothing but Pillow and NumPy.

    python pictures.py CHANNELS SIZE < names of files, a zero byte between them > bytes of their pixels

A file that cannot be read ends it with exit code 1 and one line on standard error.
"""

import os
import sys

import numpy as np


def pixels(image, channels: int, size: int, side: int = 0):
    """uint8 [height, width, channels].

    Args:
      image: Pillow's, of any mode.
      channels: 1 for grey, 3 for colour.
      size: if not 0, the square in the middle is resized to this height and width.
      side: of that square; 0: as large as it can be.
    """
    from PIL import Image

    if image.mode.startswith("I;16"):
        image = Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
    image = image.convert("L" if channels == 1 else "RGB")
    if size:
        width, height = image.size
        side = min(side or min(width, height), width, height)
        left, top = (width - side) // 2, (height - side) // 2
        # Pillow's filters widen when they shrink: no pixel is left out.
        square = image.crop((left, top, left + side, top + side))
        image = square.resize((size, size), Image.Resampling.BILINEAR)
    return np.asarray(image, np.uint8).reshape(*image.size[::-1], channels)


def main() -> int:
    from PIL import Image

    channels, size = map(int, sys.argv[1:3])
    for path in sys.stdin.buffer.read().split(b"\0"):
        try:
            with Image.open(os.fsdecode(path)) as image:
                found = pixels(image, channels, size)
        except Exception as error:  # Pillow raises a dozen types for what it cannot read
            print(f"{os.fsdecode(path)} ({type(error).__name__})", file=sys.stderr)
            return 1
        sys.stdout.buffer.write(found.tobytes())
    return 0


if __name__ == "__main__":
    sys.exit(main())
