"""Exports that several tests of one net share."""


def remembering(export, made):
    """Returns `deploy`'s export, which exports nothing a second time: what it made is kept in `made`, a dict."""

    def remembered(weights, *, progress, on_loaded, **options):
        key = str(weights), tuple(sorted(options.items()))
        if key not in made:
            made[key] = export(weights, progress=progress, on_loaded=on_loaded, **options)
        else:
            on_loaded(made[key].spec)
        return made[key]

    return remembered
