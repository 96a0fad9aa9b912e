"""QLoRA (Dettmers et al., arXiv:2305.14314): adapters that train beside weights quantised to 4 or 8 bits."""

from __future__ import annotations

from dataclasses import replace
from typing import ClassVar

from lmflow_core.api import LoadPlan, Quantization
from lmflow_lora.options import QloraOptions
from lmflow_lora.tuner import LoraTuner


class QloraTuner(LoraTuner):
    """Trains adapters beside quantised weights; they are saved as adapters of the model as it is, unquantised."""

    name: ClassVar[str] = "qlora"

    def __init__(self, options: QloraOptions | None = None) -> None:
        options = options or QloraOptions()
        super().__init__(options)
        double = options.qlora_double_quantization and options.qlora_type != "int8"
        self._quantization = Quantization(options.qlora_type, double, options.qlora_compute_dtype)

    def plan(self, plan: LoadPlan) -> LoadPlan:
        """Ask for quantised weights; adapters are float32."""
        return replace(plan, quantization=self._quantization)
