"""The options of ESPnet's asr.sh, mt.sh and st.sh, and what becomes of each in legonn.sh.

A name that stands at the head of legonn.sh is an option there. All others are here: another name of one (``ALIASES``),
or not there (``ABSENT``), with the reason and what to use. ``NOTES`` says where a known one differs.
"""

from __future__ import annotations

from dataclasses import dataclass

_GENERAL = """stage stop_stage skip_data_prep skip_train skip_eval skip_upload skip_upload_hf ngpu num_nodes nj
    inference_nj gpu_inference dumpdir expdir python local_data_opts feats_type oov blank sos_eos use_ngram ngram_exp
    ngram_num use_lm lm_tag lm_exp lm_stats_dir lm_config lm_args use_word_lm num_splits_lm word_vocab_size
    ignore_init_mismatch hf_repo use_k2 batch_size inference_tag inference_config inference_args inference_lm
    inference_ngram download_model train_set valid_set test_sets lm_train_text lm_dev_text lm_test_text nlsyms_txt
    cleaner g2p lang score_opts local_score_opts lm_fold_length"""
_SOUND = "speed_perturb_factors audio_format fs min_wav_duration max_wav_duration feats_normalize"
_BPE = ("case", "token_type", "nbpe", "bpemode", "bpe_input_sentence_size", "bpe_nlsyms", "bpe_char_cover")
_PAIR = ["token_joint", "src_lang", "tgt_lang", "src_bpe_train_text", "tgt_bpe_train_text"]
_PAIR += [f"{side}_{name}" for side in ("src", "tgt") for name in _BPE]
_ASR = """skip_stages skip_packing eval_valid_set use_lightning debug post_process_local_data_opts auxiliary_data_tags
    multi_columns_input_wav_scp multi_columns_output_wav_scp token_type nbpe bpemode bpe_input_sentence_size bpe_nlsyms
    bpe_char_cover hugging_face_model_name_or_path use_prompt use_lang_prompt use_nlp_prompt asr_task pretrained_model
    num_ref num_inf sot_asr k2_ctc_decoding use_nbest_rescoring num_paths nll_batch_size k2_config use_streaming
    use_maskctc bpe_train_text hyp_cleaner asr_speech_fold_length asr_text_fold_length"""


def _of_task(task: str) -> list[str]:
    return [*(f"{task}_{name}" for name in ("tag", "exp", "stats_dir", "config", "args")),
            f"num_splits_{task}", f"inference_{task}_model"]  # fmt: skip


# All names of each script, of its versions of 2022 to 2025.
ESPNET: dict[str, tuple[str, ...]] = {
    "asr.sh": (*_GENERAL.split(), *_SOUND.split(), *_ASR.split(), *_of_task("asr")),
    "mt.sh": (*_GENERAL.split(), *_PAIR, *_of_task("mt"), "mt_text_fold_length"),
    "st.sh": (
        *_GENERAL.split(), *_SOUND.split(), *_PAIR, *_of_task("st"), "pretrained_asr", "use_streaming",
        "st_speech_fold_length", "st_text_fold_length",
    ),
}  # fmt: skip

ALIASES: dict[str, str] = {
    **{f"{task}_{name}": f"legonn_{name}" for task in ("asr", "mt", "st")
       for name in ("tag", "exp", "stats_dir", "config", "args")},
    **{f"inference_{task}_model": "inference_legonn_model" for task in ("asr", "mt", "st")},
    **{f"num_splits_{task}": "num_splits" for task in ("asr", "mt", "st")},
    **{f"tgt_{name}": name for name in _BPE[1:]},
    "tgt_lang": "lang",
    "tgt_bpe_train_text": "bpe_train_text",
    "pretrained_asr": "pretrained_model",
    "skip_upload_hf": "skip_upload",
}  # fmt: skip


@dataclass(frozen=True)
class Absent:
    """Why an option is not there.

    Args:
        reason: as it is printed.
        instead: nearest options of legonn.sh.
        harmless: values that ask for what is done anyway: accepted, and nothing comes of them.
    """

    reason: str
    instead: tuple[str, ...] = ()
    harmless: tuple[str, ...] = ()


_LM = Absent("the language model has the tokens of the chain's last vocabulary", ("lm_config", "lm_args"), ("",))
_OFF = {"harmless": ("false",)}
_FOLD = Absent(
    "batches are cut by their elements: batch_type numel and batch_bins in the training config", ("legonn_config",)
)
_K2 = Absent("the search is our own, not k2's", ("inference_config", "inference_args"), ("",))
_PROMPT = Absent("no chain reads prompts", ("legonn_config",), **_OFF)
_COLUMNS = Absent("a recording has one column; one channel is taken of it", ("local_data_opts",), **_OFF)
_SPEAKERS = Absent("a chain writes the words of one speaker", ("legonn_config",), ("", "1", "false"))

ABSENT: dict[str, Absent] = {
    "word_vocab_size": _LM,
    "use_word_lm": Absent(_LM.reason, _LM.instead, ("false",)),
    "num_splits_lm": Absent("the texts of a language model are read as one", ("lm_args",), ("1",)),
    "lm_fold_length": Absent("150 tokens; --lm_args '--fold_length N' says another", ("lm_args",), ("150",)),
    **dict.fromkeys(("asr_speech_fold_length", "asr_text_fold_length", "mt_text_fold_length", "st_speech_fold_length",
                     "st_text_fold_length"), _FOLD),
    **dict.fromkeys(("k2_ctc_decoding", "use_nbest_rescoring", "num_paths", "nll_batch_size", "k2_config"), _K2),
    "use_k2": Absent(_K2.reason, _K2.instead, ("false",)),
    **dict.fromkeys(("use_prompt", "use_lang_prompt", "use_nlp_prompt"), _PROMPT),
    **dict.fromkeys(("multi_columns_input_wav_scp", "multi_columns_output_wav_scp"), _COLUMNS),
    **dict.fromkeys(("num_ref", "num_inf", "sot_asr"), _SPEAKERS),
    "use_streaming": Absent("the length controller needs the whole input", ("inference_config",), **_OFF),
    "use_maskctc": Absent("decoders are autoregressive; a chain without one is decoded by CTC", ("inference_config",),
                          **_OFF),
    "use_lightning": Absent("training is that of ESPnet's own trainer", ("legonn_args",), **_OFF),
    "debug": Absent("cmd_backend=stdout shows what jobs print", ("stage",), **_OFF),
    "asr_task": Absent("the chain in the config says what is trained", ("legonn_config",), ("asr",)),
    "feats_normalize": Absent("the speech input says so: normalize: utterance | global | none in the config",
                              ("legonn_config",)),
    "hugging_face_model_name_or_path": Absent("vocabularies are made or adopted by `legonn vocab`", ("vocab_opts",),
                                              ("",)),
    "post_process_local_data_opts": Absent("local/data.sh runs once, in stage 1", ("local_data_opts",), ("",)),
    "auxiliary_data_tags": Absent("targets of a chain are text and text_phn", ("use_phonemes",), ("",)),
    "hyp_cleaner": Absent("hypotheses are scored as they are; local/score.sh may score otherwise",
                          ("cleaner", "local_score_opts"), ("none",)),
}  # fmt: skip

# Where an option of both has another default or sense here; those that are not named are the same.
NOTES: dict[str, str] = {
    "use_lm": "false by default; its weight in the search is tuned",
    "ngram_num": "4 by default, over the target's tokens",
    "inference_ngram": "an ARPA file, no binary of KenLM's; <ngram_num>gram.arpa.gz by default",
    "lm_test_text": "by default the text of the first test set",
    "stage": "the numbers are asr.sh's; 14 packs, 15 uploads",
    "ngpu": "by default as many as there are on this machine; on a cluster give it",
    "nj": "4 by default, not 32",
    "inference_nj": "2 by default, not 32: a job decodes batches",
    "gpu_inference": "true by default, where ngpu is above 0",
    "skip_train": "as in asr.sh it leaves out stages 2 and 4 to 11, and stage 3 makes ready test sets alone",
    "skip_packing": "false by default",
    "skip_upload": "stage 15 alone; it is also --skip_upload_hf of newer scripts",
    "eval_valid_set": "as stage 4 left it (unfiltered where stage 4 did not run), in a folder named after the set",
    "feats_type": "raw and extracted: sound, or the feats.scp that another recipe left (`input: {type: features}`)",
    "audio_format": "flac, wav",
    "token_type": "char, word and bpe; phonemes by --use_phonemes beside them",
    "nbpe": "1000 by default, special tokens included",
    "lang": "of the target, in the name of its token list: data/<lang>_token_list; en by default",
    "src_token_type": "as token_type",
    "token_joint": "the source reads the target's vocabulary",
    "oov": "fixed: every pack has it",
    "blank": "fixed: every pack has it",
    "sos_eos": "fixed: every pack has it",
    "bpe_input_sentence_size": "0 (all lines) by default",
    "nlsyms_txt": "its symbols are units of the vocabulary, and are left out of error rates",
    "cleaner": "stage 3 cleans the texts of every set, once: vocabularies, training and references are made of these; "
    "tc, lc and lc.rm besides ESPnet's",
    "g2p": "turns --use_phonemes on; g2p_en, auto, or lexicon (by --phoneme_opts)",
    "pretrained_model": "an experiment or a pack (modules begin with the weights of those of their name), or FILE.pth",
    "ignore_init_mismatch": "with FILE.pth; of packs, what has another shape is left and named in the log",
    "num_splits": "num_splits_asr and the like: the training set is read in so many parts",
    "batch_size": "32 by default or that of the config: answers do not depend on it",
    "inference_legonn_model": "inference_asr_model and the like; by default the averaged weights",
    "inference_tag": "by default the config's name and inference_args; _untuned where the search could be tuned",
    "download_model": "a folder, zip, URL, name of an inventory or tag of the Hub; stages 10 and 11 are left out",
    "score_opts": "of sclite, run beside our own scores where SCTK is installed: score_wer/sclite.txt",
    "legonn_tag": "asr_tag and the like; the folder is exp/legonn_<tag>",
    "legonn_config": "describes a chain (conf/reference.yaml), not an encoder and a decoder",
}
