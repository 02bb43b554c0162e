"""The few functions of llama.cpp that a worker needs, behind Python values. The only file that imports `llama_cpp`.

Only the low-level functions are used. `llama_decode` runs without the interpreter's lock (ctypes), so the worker's reading thread hears a
cancel while a step is under way.
"""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import llama_cpp

from astromesh.inference.sampling import SamplingPlan
from astromesh.inference.schedule import CHUNK_TOKENS, Piece

# A repetition further back is not felt as one; llama.cpp looks back as far.
REPEAT_WINDOW_TOKENS = 64

_LOG_WARN, _LOG_ERROR = 3, 4


class EngineFault(Exception):
    """llama.cpp did not do what it was asked. The process should end: its state is not to be trusted."""


@llama_cpp.llama_log_callback  # type: ignore[untyped-decorator]
def _log(level: int, text: bytes, _data: object) -> None:
    # Loading prints a thousand lines; what the parent keeps for an error message should be about the error.
    if level in (_LOG_WARN, _LOG_ERROR):
        sys.stderr.write(text.decode(errors="replace"))


class Model:
    """A `Decoder`: a model's file, its vocabulary, and one context with room for `cells` tokens of `sequences` streams."""

    def __init__(self, path: Path, *, gpu_layers: int, progress: Callable[[float], None]) -> None:
        """Maps the file. Raises `EngineFault` where llama.cpp cannot read it; why is on stderr."""
        llama_cpp.llama_log_set(_log, ctypes.c_void_p(0))
        llama_cpp.llama_backend_init()

        @llama_cpp.llama_progress_callback  # type: ignore[untyped-decorator]
        def report(fraction: float, _data: object) -> bool:
            progress(fraction)
            return True

        parameters = llama_cpp.llama_model_default_params()
        parameters.n_gpu_layers = gpu_layers
        parameters.progress_callback = report
        self._model = llama_cpp.llama_model_load_from_file(str(path).encode(), parameters)
        if not self._model:
            raise EngineFault(f"llama.cpp cannot load {path}")
        self._vocabulary = llama_cpp.llama_model_get_vocab(self._model)
        self._context: Any = None

    @property
    def trained_context(self) -> int:
        return int(llama_cpp.llama_model_n_ctx_train(self._model))

    @property
    def chat_template(self) -> str | None:
        source = llama_cpp.llama_model_chat_template(self._model, None)
        return source.decode(errors="replace") if source else None

    @property
    def bos(self) -> str:
        return self._text_of(llama_cpp.llama_vocab_bos(self._vocabulary))

    @property
    def eos(self) -> str:
        return self._text_of(llama_cpp.llama_vocab_eos(self._vocabulary))

    def _text_of(self, token: int) -> str:
        return "" if token < 0 else llama_cpp.llama_vocab_get_text(self._vocabulary, token).decode(errors="replace")

    def open_context(self, *, cells: int, sequences: int, threads: int) -> None:
        """Allocates the KV cache, one pool of cells for all sequences. Raises `EngineFault`, most often for want of memory."""
        parameters = llama_cpp.llama_context_default_params()
        parameters.n_ctx = cells
        parameters.n_batch = max(CHUNK_TOKENS, sequences)
        parameters.n_ubatch = parameters.n_batch
        parameters.n_seq_max = sequences
        parameters.kv_unified = True
        parameters.n_threads = threads
        parameters.n_threads_batch = threads
        self._context = llama_cpp.llama_init_from_model(self._model, parameters)
        if not self._context:
            raise EngineFault(f"llama.cpp has no memory for a context of {cells} tokens")
        self._memory = llama_cpp.llama_get_memory(self._context)
        self._batch = llama_cpp.llama_batch_init(parameters.n_batch, 0, 1)

    def warm_up(self) -> None:
        """One decode of one token: touches every weight, so that the first caller does not pay for it, and shows that the model works."""
        token = max(0, llama_cpp.llama_vocab_bos(self._vocabulary))
        self.decode([Piece(0, 0, (token,), output=True)])
        self.forget(0)

    def tokenize(self, prompt: str) -> list[int]:
        """A prompt that a chat template made: special tokens are in its text. The model's own beginning is added where it is missing."""
        raw = prompt.encode()
        size = len(raw) + 2  # no token is shorter than a byte, but for a leading space
        tokens = (llama_cpp.llama_token * size)()
        count = llama_cpp.llama_tokenize(self._vocabulary, raw, len(raw), tokens, size, False, True)
        if count < 0:
            raise EngineFault(f"llama.cpp cannot tokenize a prompt of {len(raw)} bytes")
        found = list(tokens[:count])
        bos = llama_cpp.llama_vocab_bos(self._vocabulary)
        if llama_cpp.llama_vocab_get_add_bos(self._vocabulary) and found[:1] != [bos]:
            found.insert(0, bos)
        return found

    def piece(self, token: int) -> bytes:
        """The bytes of a token; none for one that only steers."""
        size = 64
        while True:
            buffer = ctypes.create_string_buffer(size)
            count = llama_cpp.llama_token_to_piece(self._vocabulary, token, buffer, size, 0, False)
            if count >= 0:
                return buffer.raw[:count]
            size = -count

    def ends(self, token: int) -> bool:
        """Whether this token ends a turn."""
        return bool(llama_cpp.llama_vocab_is_eog(self._vocabulary, token))

    def sampler(self, plan: SamplingPlan, *, seed: int, window: int) -> Any:
        """The plan as a chain. `window` is the longest possible stream: penalties for frequency and presence look back over all of it."""
        chain = llama_cpp.llama_sampler_chain_init(llama_cpp.llama_sampler_chain_default_params())
        vocabulary_tokens = llama_cpp.llama_vocab_n_tokens(self._vocabulary)

        def add(stage: Any) -> None:
            llama_cpp.llama_sampler_chain_add(chain, stage)

        if plan.repeat_penalty != 1.0:
            add(llama_cpp.llama_sampler_init_penalties(vocabulary_tokens, REPEAT_WINDOW_TOKENS, plan.repeat_penalty, 0.0, 0.0))
        if plan.frequency_penalty != 0.0 or plan.presence_penalty != 0.0:
            add(llama_cpp.llama_sampler_init_penalties(vocabulary_tokens, window, 1.0, plan.frequency_penalty, plan.presence_penalty))
        if plan.greedy:
            add(llama_cpp.llama_sampler_init_greedy())
            return chain
        if plan.top_k > 0:
            add(llama_cpp.llama_sampler_init_top_k(plan.top_k))
        if plan.top_p < 1.0:
            add(llama_cpp.llama_sampler_init_top_p(plan.top_p, 1))
        if plan.min_p > 0.0:
            add(llama_cpp.llama_sampler_init_min_p(plan.min_p, 1))
        add(llama_cpp.llama_sampler_init_temp(plan.temperature))
        add(llama_cpp.llama_sampler_init_dist(seed))
        return chain

    def decode(self, pieces: Sequence[Piece]) -> list[int]:
        """One `llama_decode`. For every piece with `output`, in order, the index that `sample` takes. Raises `EngineFault`."""
        batch, row, outputs = self._batch, 0, []
        for piece in pieces:
            for offset, token in enumerate(piece.tokens):
                batch.token[row] = token
                batch.pos[row] = piece.position + offset
                batch.n_seq_id[row] = 1
                batch.seq_id[row][0] = piece.sequence
                batch.logits[row] = 0
                row += 1
            if piece.output:
                batch.logits[row - 1] = 1
                outputs.append(row - 1)
        batch.n_tokens = row
        code = llama_cpp.llama_decode(self._context, batch)
        if code != 0:
            raise EngineFault(f"llama_decode of {row} tokens ended with code {code}")
        return outputs

    def sample(self, sampler: Any, output: int) -> int:
        """Takes a token and tells the chain, whose penalties and generator go on from it."""
        return int(llama_cpp.llama_sampler_sample(sampler, self._context, output))

    def release(self, sampler: Any) -> None:
        llama_cpp.llama_sampler_free(sampler)

    def forget(self, sequence: int) -> None:
        """Frees every cell of a sequence."""
        llama_cpp.llama_memory_seq_rm(self._memory, sequence, -1, -1)
