"""How much an item depends on its padding: ESPnet's encoders by themselves, and as bodies of a module.

python -m benchmarks.padding    an item of 120 steps alone, and in a batch with one of 200; float32, random weights

It writes benchmarks/padding.json, which `python -m benchmarks --docs` puts into docs/add_a_part.md.
"""

from __future__ import annotations

import json

import torch

from benchmarks.pages import PADDING
from espnet2_legonn.model.espnet_body import ENCODERS, EspnetBody, EspnetBodyConfig

SIZES = {"output_size": 256, "attention_heads": 4, "linear_units": 1024, "num_blocks": 6}
BODIES = {
    "transformer": SIZES,
    "conformer": {**SIZES, "macaron_style": True},
    "e_branchformer": {**SIZES, "cgmlp_linear_units": 1024, "use_ffn": True, "macaron_ffn": True},
    "branchformer": {**{k: v for k, v in SIZES.items() if k != "linear_units"}, "cgmlp_linear_units": 1024},
    "multiconv_conformer": {**SIZES, "cgmlp_linear_units": 1024},
    "rnn": {"output_size": 256, "hidden_size": 256, "num_layers": 3},
    "contextual_block_transformer": SIZES,
    "contextual_block_conformer": SIZES,
}
SHORT, LONG = 120, 200


def described(kind: str, **more: object) -> EspnetBodyConfig:
    """The description of a body."""
    given = {**BODIES[kind], **more}
    own = {k: given.pop(k) for k in tuple(given) if k in EspnetBodyConfig.__dataclass_fields__}
    return EspnetBodyConfig(**own, type=f"espnet:{kind}", others=given)  # type: ignore[arg-type]


@torch.no_grad()
def gap(body: EspnetBody, stock: bool) -> float:
    """The largest difference between the short item alone and beside the long one."""
    torch.manual_seed(0)
    x = torch.randn(2, LONG, 256)
    x[1, SHORT:] = 0
    lengths = torch.tensor([LONG, SHORT])

    def run(x: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
        return body.encoder(x, lengths)[0] if stock else body(x, lengths)

    return float((run(x, lengths)[1, :SHORT] - run(x[1:, :SHORT], lengths[1:])[0]).abs().max())


def main() -> None:
    """Measure each encoder, print a line for it, and write them all."""
    found = []
    print(f"{'encoder':30} {'parameters':>12} {'ESPnet':>9} {'as a body':>10}")
    for kind in ENCODERS:
        for more in ({}, {"rel_pos_type": "legacy"}) if kind == "conformer" else ({},):
            torch.manual_seed(1)
            config = described(kind, **more)
            body = EspnetBody(config).eval()
            name = " ".join([kind, *(f"({v})" for v in more.values())])
            parameters = sum(p.numel() for p in body.parameters())
            row = {"encoder": name, "parameters": parameters, "espnet": gap(body, True), "body": gap(body, False)}
            print("{encoder:30} {parameters:12,} {espnet:9.1e} {body:10.1e}".format(**row), flush=True)
            found.append(row)
    PADDING.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
