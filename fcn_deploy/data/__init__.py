"""Images, labels and folders of them, read with Pillow; never torch."""
