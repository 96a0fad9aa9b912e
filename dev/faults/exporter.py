"""Exporters, some of which are sound; each of the others has the fault its docstring names."""

import json
import time

import torch

from lmflow_core.api import ExportReport
from lmflow_transformers.api import CausalModel


def _sizes(folder):
    return {path.relative_to(folder).as_posix(): path.stat().st_size for path in folder.rglob("*") if path.is_file()}


class Sound:
    """Writes the merged model as transformers keeps it."""

    def __init__(self, options=None): ...

    def export(self, model: CausalModel, folder, chat_template):
        network = model.network
        if hasattr(network, "merge_and_unload"):
            model.network = network.merge_and_unload()
        model.save(folder, chat_template)
        return ExportReport(_sizes(folder))


class LeavesPartial(Sound):
    """Leaves a file of the time when it was writing."""

    def export(self, model, folder, chat_template):
        report = super().export(model, folder, chat_template)
        (folder / "weights.partial").write_bytes(b"0" * 10)
        return report


class TellsOtherSizes(Sound):
    """Tells sizes from before the files were closed."""

    def export(self, model, folder, chat_template):
        return ExportReport(dict.fromkeys(super().export(model, folder, chat_template).files, 0))


class SwallowsRefusals(Sound):
    """Goes on when the disk refuses."""

    def export(self, model, folder, chat_template):
        try:
            return super().export(model, folder, chat_template)
        except OSError:
            return ExportReport(_sizes(folder))


class WritesBeside(Sound):
    """Keeps a record beside the destination."""

    def export(self, model, folder, chat_template):
        (folder.parent / "exports.log").write_text("one more\n")
        return super().export(model, folder, chat_template)


class WritesHere(Sound):
    """Keeps a record in the working folder."""

    def export(self, model, folder, chat_template):
        with open("exports.log", "w") as log:
            log.write("one more\n")
        return super().export(model, folder, chat_template)


class WritesIntoModel(Sound):
    """Keeps a cache in the folder of the model."""

    def export(self, model, folder, chat_template):
        if model.folder:
            (model.folder / "cache.json").write_text(str(time.time()))
        return super().export(model, folder, chat_template)


class TellsTheTime(Sound):
    """Writes when it was written."""

    def export(self, model, folder, chat_template):
        super().export(model, folder, chat_template)
        (folder / "made.json").write_text(json.dumps(time.time_ns()))
        return ExportReport(_sizes(folder))


class ChangesModel(Sound):
    """Rounds the weights in memory before it writes them."""

    def export(self, model, folder, chat_template):
        with torch.no_grad():
            for parameter in model.network.parameters():
                parameter.copy_(parameter.to(torch.bfloat16))
        return super().export(model, folder, chat_template)


class ForgetsAdapter(Sound):
    """Writes the base of an adapter."""

    def export(self, model, folder, chat_template):
        if hasattr(model.network, "unload"):
            model.network = model.network.unload()
        return super().export(model, folder, chat_template)


class ForgetsTemplate(Sound):
    """Leaves out the chat template."""

    def export(self, model, folder, chat_template):
        return super().export(model, folder, None)


class Scales(Sound):
    """Writes other weights than the model's."""

    def export(self, model, folder, chat_template):
        weight = model.base.lm_head.weight
        with torch.no_grad():
            weight.mul_(1.1)
        report = super().export(model, folder, chat_template)
        with torch.no_grad():
            weight.div_(1.1)
        return report
