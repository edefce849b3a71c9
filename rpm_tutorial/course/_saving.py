"""What `rpm-tutorial lab` adds to Jupyter's server: of a widget that brings a figure along, the figure alone is saved.

Whoever opens the file later has another kernel, where the widget would be the words "model not found".
"""

WIDGET = "application/vnd.jupyter.widget-view+json"


def save_the_still(*, model: dict, **_others) -> None:
    if model["type"] == "notebook":
        for cell in model["content"]["cells"]:
            for output in cell.get("outputs", ()):
                if output.get("data", {}).keys() > {WIDGET, "text/plain"}:
                    del output["data"][WIDGET]


def _jupyter_server_extension_points() -> list[dict]:
    return [{"module": __name__}]


def _load_jupyter_server_extension(app) -> None:
    app.contents_manager.register_pre_save_hook(save_the_still)
