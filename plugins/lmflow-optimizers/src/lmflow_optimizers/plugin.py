"""Declares the optimizers."""

from __future__ import annotations

from collections.abc import Iterable

from lmflow_core.api import OptimizerSpec, hookimpl
from lmflow_optimizers import options as of

# By module: name, class, options, summary, and the learning rate where the tuner's would not do.
_Row = tuple[str, str, type | None, str, float | None]
_TABLE: dict[str, tuple[_Row, ...]] = {
    "native": (
        ("adadelta", "Adadelta", of.AdadeltaOptions, "Adadelta: steps in units of the weights.", 1.0),
        ("adafactor", "Adafactor", of.AdafactorOptions, "Adafactor: squares by row and column alone.", 1e-3),
        ("adagrad", "Adagrad", of.AdagradOptions, "Adagrad: steps shrink with all gradients.", 1e-3),
        ("adam", "Adam", of.MomentOptions, "Adam: decay is a part of the gradient.", None),
        ("adamax", "Adamax", of.MomentOptions, "Adamax: Adam by the largest gradient.", None),
        ("nadam", "NAdam", of.NAdamOptions, "NAdam: Adam with Nesterov's momentum.", None),
        ("radam", "RAdam", of.MomentOptions, "RAdam: Adam that warms up by itself.", None),
        ("rmsprop", "Rmsprop", of.RmspropOptions, "RMSprop with momentum.", None),
        ("sgd", "Sgd", of.SgdOptions, "Descent with momentum.", 1e-2),
    ),
    "adaptive": (
        ("adabelief", "AdaBelief", of.MomentOptions, "AdaBelief: steps by how expected a gradient is.", None),
        ("adabound", "AdaBound", of.AdaBoundOptions, "AdaBound: Adam that becomes plain descent.", None),
        ("adamp", "AdamP", of.AdamPOptions, "AdamP: Adam that does not lengthen weights.", None),
        ("adan", "Adan", of.AdanOptions, "Adan: Nesterov's momentum by differences.", None),
        ("lamb", "Lamb", of.MomentOptions, "LAMB: Adam relative to norms of weights.", 1e-3),
        ("lars", "Lars", of.LarsOptions, "LARS: descent relative to norms of weights.", 1e-1),
        ("lion", "Lion", of.BetaOptions, "Lion: the sign of the momentum.", None),
        ("novograd", "NovoGrad", of.MomentOptions, "NovoGrad: one second mean a matrix.", 1e-3),
        ("sgdp", "Sgdp", of.SgdpOptions, "SGDP: descent that does not lengthen weights.", 1e-2),
        ("yogi", "Yogi", of.YogiOptions, "Yogi: Adam whose squares change slowly.", 1e-3),
    ),
    "schedule_free": (
        ("adamw_schedule_free", "ScheduleFreeAdamW", of.ScheduleFreeOptions, "AdamW that averages weights.", None),
        ("sgd_schedule_free", "ScheduleFreeSgd", of.ScheduleFreeSgdOptions, "Descent that averages weights.", 1.0),
    ),
    "sophia": (("sophia", "Sophia", of.SophiaOptions, "Sophia: momentum over curvature, clipped.", None),),
    "dummy": (("dummy", "Dummy", None, "Weight decay alone: it learns nothing.", None),),
    "muon": (("muon", "Muon", of.MuonOptions, "Muon for hidden matrices, AdamW for all else.", None),),
    "projected": (
        ("apollo", "Apollo", of.ApolloOptions, "APOLLO: gradients scaled by a projection's means.", None),
        ("galore", "Galore", of.GaloreOptions, "GaLore: AdamW on projected gradients.", None),
    ),
    "eight_bit": (
        ("adamw_8bit", "AdamW8bit", of.MomentOptions, "AdamW with state in eight bits.", None),
        ("lion_8bit", "Lion8bit", of.BetaOptions, "Lion with state in eight bits.", None),
        ("paged_adamw_32bit", "PagedAdamW", of.MomentOptions, "AdamW whose state leaves a full GPU.", None),
        ("paged_adamw_8bit", "PagedAdamW8bit", of.MomentOptions, "8-bit AdamW whose state leaves a full GPU.", None),
        ("paged_lion_32bit", "PagedLion", of.BetaOptions, "Lion whose state leaves a full GPU.", None),
        ("paged_lion_8bit", "PagedLion8bit", of.BetaOptions, "8-bit Lion whose state leaves a full GPU.", None),
    ),
}
# Other names, those of transformers among them.
_ALIASES = {
    "adamw_8bit": ("adamw_bnb_8bit",),
    "adamw_schedule_free": ("schedule_free_adamw",),
    "apollo": ("apollo_adamw",),
    "galore": ("galore_adamw",),
    "lion": ("lion_32bit",),
    "sgd_schedule_free": ("schedule_free_sgd",),
}
_NEEDS = {"eight_bit": ("bitsandbytes",)}


@hookimpl
def lmflow_register_optimizers() -> Iterable[OptimizerSpec]:
    """Offer them all."""
    for module, rows in _TABLE.items():
        for name, target, options, summary, learning_rate in rows:
            yield OptimizerSpec(
                name=name,
                target=f"lmflow_optimizers.{module}:{target}",
                summary=summary,
                aliases=_ALIASES.get(name, ()),
                requires=_NEEDS.get(module, ()),
                options=options,
                learning_rate=learning_rate,
            )
