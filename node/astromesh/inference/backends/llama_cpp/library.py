"""The few functions of llama.cpp that a worker needs, behind Python values. The only file that imports `llama_cpp`.

Only the low-level functions are used. `llama_decode` runs without the interpreter's lock (ctypes), so the worker's reading thread hears a
cancel while a step is under way.
"""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

import llama_cpp
import numpy as np

from astromesh.errors import InvalidRequest
from astromesh.inference.backends.devices.engine import report
from astromesh.inference.chat import CUT
from astromesh.inference.sampling import SamplingPlan
from astromesh.inference.schedule import Piece, TokenChances
from astromesh.inference.stream import CHUNK_TOKENS

# A repetition further back is not felt as one; llama.cpp looks back as far.
REPEAT_WINDOW_TOKENS = 64

_LOG_WARN, _LOG_ERROR = 3, 4
_GGML_TYPE_BF16 = 30  # of ggml.h; the package names only the older ones


class EngineFault(Exception):
    """llama.cpp did not do what it was asked. The process should end: its state is not to be trusted."""


@llama_cpp.llama_log_callback  # type: ignore[untyped-decorator]
def _log(level: int, text: bytes, _data: object) -> None:
    # Loading prints a thousand lines; what the parent keeps for an error message should be about the error.
    if level in (_LOG_WARN, _LOG_ERROR):
        sys.stderr.write(text.decode(errors="replace"))


# llama.cpp's own layout of a candidate.
_CANDIDATE = np.dtype([("id", np.int32), ("logit", np.float32), ("p", np.float32)])


def _cards() -> list[str]:
    """What llama.cpp can put layers on, by the names of the hardware, in its order."""
    found = report(Path(llama_cpp.__file__).parent / "lib")["look"]["found"]
    return [row["name"] for row in found]


def _array_of(candidates: Any) -> Any:
    rows = candidates.ctypes.data_as(ctypes.POINTER(llama_cpp.llama_token_data))
    return llama_cpp.llama_token_data_array(rows, len(candidates), -1, False)


@dataclass(slots=True)
class Sampler:
    """A chain of llama.cpp's stages, the chance of one stream, and its grammar. Without chance the chain ends in the best token.

    One number is drawn for each token, whatever the filters leave, so that a stream can be gone on with elsewhere by counting its tokens.
    """

    chain: Any
    chance: Random | None
    grammar: Any = None
    held: bool = False  # by the grammar, now
    best: bool = False  # nothing but the best token is asked for: no stage changes a logit


class Model:
    """A `Decoder`: a model's file, its vocabulary, and one context with room for `cells` tokens of `sequences` streams."""

    def __init__(self, path: Path, *, gpu_layers: int, tensor_split: Sequence[int], progress: Callable[[float], None]) -> None:
        """Maps the file. Raises `EngineFault` where llama.cpp cannot read it; why is on stderr."""
        llama_cpp.llama_log_set(_log, ctypes.c_void_p(0))
        llama_cpp.llama_backend_init()

        @llama_cpp.llama_progress_callback  # type: ignore[untyped-decorator]
        def report(fraction: float, _data: object) -> bool:
            progress(fraction)
            return True

        parameters = llama_cpp.llama_model_default_params()
        parameters.n_gpu_layers = gpu_layers
        self._on_gpu = gpu_layers != 0 and bool(llama_cpp.llama_supports_gpu_offload())
        self._where = f"{gpu_layers} layers as {list(tensor_split)} on {', '.join(_cards())}" if self._on_gpu else ""
        if tensor_split and self._on_gpu:
            split = (ctypes.c_float * llama_cpp.llama_max_devices())(*tensor_split)
            parameters.tensor_split = ctypes.cast(split, ctypes.POINTER(ctypes.c_float))
        parameters.progress_callback = report
        self._model = llama_cpp.llama_model_load_from_file(str(path).encode(), parameters)
        if not self._model:
            raise EngineFault(f"llama.cpp cannot load {path}")
        self._vocabulary = llama_cpp.llama_model_get_vocab(self._model)
        self._tokens = int(llama_cpp.llama_vocab_n_tokens(self._vocabulary))
        self._candidates = np.zeros(self._tokens, dtype=_CANDIDATE)
        self._ids = np.arange(self._tokens, dtype=np.int32)
        self._pieces: dict[int, bytes] = {}  # bounded by the vocabulary
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

    @property
    def specials(self) -> frozenset[str]:
        """The texts of all tokens that only steer, or end a turn."""
        steering = llama_cpp.LLAMA_TOKEN_ATTR_CONTROL | llama_cpp.LLAMA_TOKEN_ATTR_UNKNOWN
        return frozenset(
            self._text_of(token)
            for token in range(self._tokens)
            if llama_cpp.llama_vocab_get_attr(self._vocabulary, token) & steering or self.ends(token)
        )

    def _text_of(self, token: int) -> str:
        return "" if token < 0 else llama_cpp.llama_vocab_get_text(self._vocabulary, token).decode(errors="replace")

    def open_context(self, *, cells: int, sequences: int, threads: int) -> None:
        """Allocates the KV cache, one pool of cells for all sequences. Raises `EngineFault`, most often for want of memory."""
        parameters = llama_cpp.llama_context_default_params()
        parameters.n_ctx = cells
        parameters.n_batch = max(CHUNK_TOKENS, sequences)
        parameters.n_ubatch = parameters.n_batch
        parameters.n_seq_max = sequences + 1  # the last one is where states are taken apart and put together
        parameters.kv_unified = True
        parameters.n_threads = threads
        parameters.n_threads_batch = threads
        if not self._on_gpu:
            # With keys and values of 16-bit floats llama.cpp's attention on a CPU adds up in one order for a single token (from 512 cells
            # on), in another for 64 and more, and in a third otherwise; measured, greedy text then changes with the company that a stream
            # has and with what was cached. For bfloat16 there is one way, and every token gets the same sums in every batch. It costs a
            # twentieth of the decoding speed at 400 cells and a tenth at 600 (SmolLM2, two cores). Values of 16-bit floats behind keys of
            # bfloat16 are a third faster at 3,000 cells, and are added up in 16 bits: then even the order of the cells changes the text.
            parameters.type_k = parameters.type_v = _GGML_TYPE_BF16
            parameters.flash_attn_type = llama_cpp.LLAMA_FLASH_ATTN_TYPE_ENABLED
        self._context = llama_cpp.llama_init_from_model(self._model, parameters)
        if not self._context:
            raise EngineFault(f"llama.cpp has no memory for a context of {cells} tokens")
        self._memory = llama_cpp.llama_get_memory(self._context)
        self._batch = llama_cpp.llama_batch_init(parameters.n_batch, 0, 1)
        self._bench = sequences

    def warm_up(self) -> None:
        """One decode of one token: touches every weight, so that the first caller does not pay for it, and shows that the model works."""
        token = max(0, llama_cpp.llama_vocab_bos(self._vocabulary))
        self.decode([Piece(0, 0, (token,), output=True)])
        self.forget(0)

    def tokenize(self, prompt: str) -> list[int]:
        """A prompt that a chat template made: special tokens are in its text, but for those with a cut. The model's own beginning is
        added where it is missing. What stands between two cuts is tokenized by itself; a SentencePiece model may read a space at a cut.
        """
        found = [token for part in prompt.split(CUT) if part for token in self._tokens_of(part)]
        bos = llama_cpp.llama_vocab_bos(self._vocabulary)
        if llama_cpp.llama_vocab_get_add_bos(self._vocabulary) and found[:1] != [bos]:
            found.insert(0, bos)
        return found

    def read_text(self, text: str) -> list[int]:
        """A text by itself: what looks like a special token is text, and the model's own beginning and end are there."""
        return self._tokens_of(text, plain=True)

    def _tokens_of(self, text: str, *, plain: bool = False) -> list[int]:
        raw = text.encode()
        size = len(raw) + 4  # no token is shorter than a byte, but for a leading space; and a beginning and an end
        tokens = (llama_cpp.llama_token * size)()
        count = llama_cpp.llama_tokenize(self._vocabulary, raw, len(raw), tokens, size, plain, not plain)
        if count < 0:
            raise EngineFault(f"llama.cpp cannot tokenize {len(raw)} bytes")
        return list(tokens[:count])

    def token_of(self, text: str) -> int | None:
        found = self._tokens_of(text)
        return found[0] if len(found) == 1 else None

    def piece(self, token: int) -> bytes:
        """The bytes of a token; none for one that only steers."""
        piece = self._pieces.get(token)
        if piece is None:
            piece = self._pieces[token] = self._piece(token)
        return piece

    def _piece(self, token: int) -> bytes:
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

    def sampler(self, plan: SamplingPlan, *, seed: int, window: int, grammar: str | None, held: bool) -> Sampler:
        """The plan as a chain. `window` is the longest possible stream: penalties for frequency and presence look back over all of it.
        `held`: the grammar holds from the first token on; otherwise from `hold` to `let_go`.

        Raises `InvalidRequest` for a bias of a token that the model has not, and for a grammar that llama.cpp does not take.
        """
        for token, _ in plan.logit_bias:
            if not 0 <= token < self._tokens:
                raise InvalidRequest(
                    f"logit_bias names token {token}, and the tokens of this model are 0 to {self._tokens - 1}", param="logit_bias"
                )
        rules = self._grammar(grammar) if grammar is not None else None
        chain = llama_cpp.llama_sampler_chain_init(llama_cpp.llama_sampler_chain_default_params())

        def add(stage: Any) -> None:
            llama_cpp.llama_sampler_chain_add(chain, stage)

        if plan.logit_bias:
            add(self._biases(plan.logit_bias))
        if plan.repeat_penalty != 1.0:
            add(llama_cpp.llama_sampler_init_penalties(self._tokens, REPEAT_WINDOW_TOKENS, plan.repeat_penalty, 0.0, 0.0))
        if plan.frequency_penalty != 0.0 or plan.presence_penalty != 0.0:
            add(llama_cpp.llama_sampler_init_penalties(self._tokens, window, 1.0, plan.frequency_penalty, plan.presence_penalty))
        if plan.greedy:
            best = not llama_cpp.llama_sampler_chain_n(chain)
            add(llama_cpp.llama_sampler_init_greedy())
            return Sampler(chain, None, rules, held and rules is not None, best)
        if plan.top_k > 0:
            add(llama_cpp.llama_sampler_init_top_k(plan.top_k))
        if plan.top_p < 1.0:
            add(llama_cpp.llama_sampler_init_top_p(plan.top_p, 1))
        if plan.min_p > 0.0:
            add(llama_cpp.llama_sampler_init_min_p(plan.min_p, 1))
        add(llama_cpp.llama_sampler_init_temp(plan.temperature))
        return Sampler(chain, Random(seed), rules, held and rules is not None)  # noqa: S311  chance, not a secret

    def _biases(self, biases: Sequence[tuple[int, float]]) -> Any:
        rows = (llama_cpp.llama_logit_bias * len(biases))()
        for row, (token, bias) in zip(rows, biases, strict=True):
            row.token, row.bias = token, bias
        return llama_cpp.llama_sampler_init_logit_bias(self._tokens, len(biases), rows)

    def _grammar(self, grammar: str) -> Any:
        rules = llama_cpp.llama_sampler_init_grammar(self._vocabulary, grammar.encode(), b"root")
        if not rules:
            raise InvalidRequest("the engine cannot decode by the grammar of this request", param="response_format")
        return rules

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

    def sample(self, sampler: Sampler, output: int) -> int:
        """Takes a token and tells the chain, whose penalties go on from it.

        Under a grammar the token is drawn as if there were none, and drawn again with the same chance from what the grammar leaves only
        where it does not fit: looking at one token is a thousand times cheaper than looking at all, and most fit.
        """
        if sampler.best and not sampler.held:
            return int(self._logits_of(output).argmax())  # the first of the best, as the chain takes it, in a tenth of its time
        if sampler.chance is None and not sampler.held:
            return int(llama_cpp.llama_sampler_sample(sampler.chain, self._context, output))
        draw = sampler.chance.random() if sampler.chance is not None else None
        token = self._draw(self._candidates_of(output), sampler.chain, draw)
        if sampler.held and not self._allowed(sampler.grammar, token):
            kept = self._under(sampler.grammar, self._candidates_of(output))
            if not len(kept):
                return max(0, int(llama_cpp.llama_vocab_eos(self._vocabulary)))  # no token goes on from here: what is there is all
            token = self._draw(kept, sampler.chain, draw)
        self._accept(sampler, token)
        return token

    def _candidates_of(self, output: int) -> Any:
        """All tokens as rows of (id, logit, p), valid until the next call."""
        candidates = self._candidates
        candidates["id"] = self._ids
        candidates["logit"] = self._logits_of(output)
        return candidates

    def _logits_of(self, output: int) -> Any:
        return np.ctypeslib.as_array(llama_cpp.llama_get_logits_ith(self._context, output), shape=(self._tokens,))

    def _draw(self, candidates: Any, chain: Any, draw: float | None) -> int:
        """One of what the chain leaves of the candidates."""
        array = _array_of(candidates)
        llama_cpp.llama_sampler_apply(chain, ctypes.byref(array))
        if draw is None:
            return int(candidates["id"][array.selected])
        kept = candidates[: array.size]
        logits = kept["logit"].astype(np.float64)
        shares = np.cumsum(np.exp(logits - logits.max()))
        index = int(np.searchsorted(shares, draw * shares[-1], side="right"))
        return int(kept["id"][min(index, len(kept) - 1)])

    def _allowed(self, grammar: Any, token: int) -> bool:
        one = np.zeros(1, dtype=_CANDIDATE)
        one["id"] = token
        return bool(len(self._under(grammar, one)))

    def _under(self, grammar: Any, candidates: Any) -> Any:
        """Those that the grammar leaves."""
        array = _array_of(candidates)
        llama_cpp.llama_sampler_apply(grammar, ctypes.byref(array))
        return np.ascontiguousarray(candidates[np.isfinite(candidates["logit"])])

    def _accept(self, sampler: Sampler, token: int) -> None:
        """The grammar must allow it: llama.cpp ends the process otherwise."""
        llama_cpp.llama_sampler_accept(sampler.chain, token)
        if sampler.held:
            llama_cpp.llama_sampler_accept(sampler.grammar, token)

    def hold(self, sampler: Sampler) -> None:
        """From here on by the grammar, from its beginning."""
        llama_cpp.llama_sampler_reset(sampler.grammar)
        sampler.held = True

    def let_go(self, sampler: Sampler) -> None:
        sampler.held = False

    def logprobs(self, output: int, token: int, *, top: int) -> TokenChances:
        """Over what the model itself said, before biases, penalties, grammar and temperature."""
        logits = self._logits_of(output).astype(np.float64)
        logits -= logits.max()
        logits -= np.log(np.exp(logits).sum())
        best = np.argpartition(-logits, top)[:top] if top < len(logits) else np.arange(len(logits))
        best = best[np.lexsort((best, -logits[best]))]  # of equal ones the lower token first
        return float(logits[token]), [(int(other), float(logits[other])) for other in best]

    def replay(self, sampler: Sampler, tokens: Sequence[int]) -> None:
        """Brings a new sampler to where one is that took these tokens. Raises `InvalidRequest` where its grammar forbids one.

        Also for a number that is no token here: the library would end the process.
        """
        for token in tokens:
            if not 0 <= token < self._tokens:
                raise InvalidRequest(
                    f"the answer to go on with has token {token} in it, and those of this model are 0 to {self._tokens - 1}", param="resume"
                )
            if sampler.held and not self._allowed(sampler.grammar, token):
                raise InvalidRequest("the answer to go on with does not follow the grammar of this request", param="resume")
            self._accept(sampler, token)
            if sampler.chance is not None:
                sampler.chance.random()

    def release(self, sampler: Sampler) -> None:
        llama_cpp.llama_sampler_free(sampler.chain)
        if sampler.grammar is not None:
            llama_cpp.llama_sampler_free(sampler.grammar)

    # Vectors of texts.

    @property
    def columns(self) -> int:
        return int(llama_cpp.llama_model_n_embd(self._model))

    def open_encoder(self, *, tokens: int, threads: int) -> None:
        """A second context over the same weights, for one text of so many tokens at a time. Raises `EngineFault`.

        What stands for a text is what the model was made for, and the mean of its tokens where it was made to write.
        """
        parameters = llama_cpp.llama_context_default_params()
        parameters.n_ctx = parameters.n_batch = parameters.n_ubatch = tokens
        parameters.n_seq_max = 1
        parameters.n_threads = parameters.n_threads_batch = threads
        parameters.embeddings = True
        for pooling in (llama_cpp.LLAMA_POOLING_TYPE_UNSPECIFIED, llama_cpp.LLAMA_POOLING_TYPE_MEAN):
            parameters.pooling_type = pooling
            self._encoder = llama_cpp.llama_init_from_model(self._model, parameters)
            if not self._encoder:
                raise EngineFault(f"llama.cpp has no memory for a context of {tokens} tokens to embed texts")
            if llama_cpp.llama_pooling_type(self._encoder) != llama_cpp.LLAMA_POOLING_TYPE_NONE:
                break
            llama_cpp.llama_free(self._encoder)
        self._text = llama_cpp.llama_batch_init(tokens, 0, 1)

    def embed(self, tokens: Sequence[int]) -> bytes:
        """`(columns,)` float32, little-endian, of the length 1. Raises `EngineFault`."""
        batch = self._text
        for row, token in enumerate(tokens):
            batch.token[row], batch.pos[row], batch.n_seq_id[row], batch.logits[row] = token, row, 1, 1
            batch.seq_id[row][0] = 0
        batch.n_tokens = len(tokens)
        memory = llama_cpp.llama_get_memory(self._encoder)
        if memory:
            llama_cpp.llama_memory_clear(memory, True)
        code = llama_cpp.llama_decode(self._encoder, batch)
        told = llama_cpp.llama_get_embeddings_seq(self._encoder, 0) if code == 0 else None
        if not told:
            raise EngineFault(f"llama.cpp made no embedding of {len(tokens)} tokens (code {code})")
        vector = np.ctypeslib.as_array(told, shape=(self.columns,)).astype(np.float64)
        return (vector / max(float(np.linalg.norm(vector)), 1e-12)).astype("<f4").tobytes()

    # The cells of sequences.

    def forget(self, sequence: int) -> None:
        """Frees every cell of a sequence."""
        llama_cpp.llama_memory_seq_rm(self._memory, sequence, -1, -1)

    def share(self, source: int, target: int, *, start: int, end: int) -> None:
        """Gives `target` the cells of `source` from `start` to `end`, too."""
        llama_cpp.llama_memory_seq_cp(self._memory, source, target, start, end)

    def export(self, sequence: int, *, start: int, end: int) -> bytes:
        """The cells from `start` to `end`, as `restore` takes them. Raises `EngineFault`."""
        self.share(sequence, self._bench, start=start, end=end)
        size = llama_cpp.llama_state_seq_get_size(self._context, self._bench)
        data = (ctypes.c_uint8 * size)()
        written = llama_cpp.llama_state_seq_get_data(self._context, data, size, self._bench)
        self.forget(self._bench)
        if written != size:
            raise EngineFault(f"llama.cpp wrote {written} bytes of a state of {size}")
        return bytes(data)

    def restore(self, sequence: int, data: bytes, *, start: int, end: int) -> bool:
        """Puts the cells from `start` to `end` out of an export into a sequence. False where there was no room to unpack it."""
        taken = (ctypes.c_uint8 * len(data)).from_buffer_copy(data)
        read = llama_cpp.llama_state_seq_set_data(self._context, taken, len(data), self._bench)
        if read:
            self.share(self._bench, sequence, start=start, end=end)
        self.forget(self._bench)
        return bool(read)

    @property
    def divisible(self) -> bool:
        """Whether the state of a sequence can be cut and shared by tokens: not where a model folds all that it read into one."""
        return not (llama_cpp.llama_model_is_recurrent(self._model) or llama_cpp.llama_model_is_hybrid(self._model))

    @property
    def exact(self) -> bool:
        """Measured on processors only (`open_context`); on cards the attention changes its order of adding with the number of cells."""
        return not self._on_gpu

    @property
    def build(self) -> str:
        """What computes: the engine's version, the features of the processor that it was built for, and the cards that take part."""
        features = llama_cpp.llama_print_system_info().decode(errors="replace").strip()
        return f"llama_cpp {llama_cpp.__version__} {features} {self._where}".strip()
