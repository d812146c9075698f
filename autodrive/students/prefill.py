"""Everything asked of a row of clip trees, from one forward pass over it: option scores and answers.

The row is read once with a key-value cache. The options' log-probabilities and the first token of every answer are read
off the ends of the prompts. Further tokens, of options or of answers, are branches of their branch: they see what their
prompt's end saw and the earlier tokens of their own continuation, never another branch.

Where weights are cut up among processes, these gather them at every pass: all must make as many. A process that is done
then repeats what it has, until the others are done as well.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple, ParamSpec, TypeVar, cast

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from transformers import DynamicCache
from transformers.cache_utils import DynamicLayer

from autodrive.ranks.group import Group
from autodrive.students.calls import ReadOn
from autodrive.trees.clip_tree import TreeRow

P = ParamSpec("P")
R = TypeVar("R")
Continuation = tuple[int, tuple[int, ...]]  # number of its span, tokens


class Generated(NamedTuple):
    """An answer in tokens, without the token that ends it.

    Attributes:
        ids: The answer's tokens; empty where its limit is 0 or the model ended it at once.
        finished: Whether the model ended the answer itself; if not, it was cut at the limit.
    """

    ids: list[int]
    finished: bool


def likeliest(logits_SV: Tensor) -> Tensor:
    """The token (S,) with the highest logit of each span: a greedy reply is made of these."""
    return logits_SV.argmax(-1)


def without_gradients(function: Callable[P, R]) -> Callable[P, R]:
    """Make a function keep nothing for a backward pass, also where the caller is in inference mode.

    In that mode torch cannot gather sharded weights: its tensors do not count their versions.
    """
    return torch.inference_mode(False)(torch.no_grad()(function))


class PrefilledRow:
    """A row that was read once, ready to score options and to continue its branches.

    Shape letters: T trees, K most tokens of a tree, Q most new tokens of a tree.

    Attributes:
        row: The row that was read, with the places of its trees and branches.
        log_probs: (spans, vocabulary) float32, of the first token of every branch's answer.
    """

    def __init__(
        self,
        student: Callable[[ReadOn], Tensor],
        row: TreeRow,
        log_probs: Tensor,
        cache: DynamicCache,
        end_id: int,
        lockstep: Group | None = None,
    ) -> None:
        """Take over what reading the row left.

        Args:
            student: Reads further tokens behind the cache.
            row: The row that was read.
            log_probs: Log-probabilities after the end of every branch's last prompt.
            cache: Keys and values of the row.
            end_id: The token that ends an answer.
            lockstep: The processes that must make as many passes each, with rows of their own; None where each is free.
        """
        self._lockstep = lockstep or Group()
        self.row, self.log_probs = row, log_probs
        self._student, self._cache, self._end_id = student, cache, end_id
        self._layers = cast(list[DynamicLayer], cache.layers)
        ends = torch.tensor([s.target_start - 1 for s in row.spans], dtype=torch.long, device=log_probs.device)
        self._end_positions = row.position_ids[0, ends]  # within a branch all axes have the same id
        self._trees_to_rows()
        self._visible = self._prompt_visibility()

    @without_gradients
    def score_options(self) -> list[tuple[float, ...]]:
        """For every span, the summed log-probability of each of its options; empty for a span without options."""
        flat = [(number, option) for number, span in enumerate(self.row.spans) for option in span.option_ids]
        if not flat:
            self._rest_of_options(flat)
            return [() for _ in self.row.spans]
        device = self.log_probs.device
        firsts = torch.tensor([(number, option[0]) for number, option in flat], device=device)
        # The first token of every option is predicted by its prompt's end, which reading the row has scored already;
        # only options of several tokens cost another pass.
        totals = self.log_probs[firsts[:, 0], firsts[:, 1]]
        totals = totals + self._rest_of_options(flat)
        values = iter(totals.tolist())
        return [tuple(next(values) for _ in span.option_ids) for span in self.row.spans]

    @without_gradients
    def generate(
        self, max_new_tokens: Sequence[int], choose: Callable[[Tensor], Tensor] = likeliest
    ) -> list[Generated]:
        """An answer of every span: the greedy one, or one that is drawn.

        Args:
            max_new_tokens: Most tokens of each span's answer.
            choose: Turns (spans, vocabulary) logits into the next token of every span.
        """
        answers: list[list[int]] = [[] for _ in self.row.spans]
        tokens = choose(self.log_probs)
        layers = self._snapshot()
        going = [number for number, limit in enumerate(max_new_tokens) if limit > 0]
        visible, positions = self._visible, self._end_positions
        while True:
            for number, token in zip(list(going), tokens[going].tolist(), strict=True):
                answers[number].append(token)
                if token == self._end_id or len(answers[number]) == max_new_tokens[number]:
                    going.remove(number)
            if not self._lockstep.any(bool(going)):
                break
            # A span that has ended goes on with the others, so that a step is one call; nobody reads what it says.
            positions = positions + 1
            width = self._slots.shape[1]
            # The new tokens stand side by side behind the cache, one a branch. Each sees what its branch saw so far and
            # itself: a block of ones here would let the branches of a tree read each other's answers.
            own = torch.eye(width, dtype=torch.bool, device=visible.device).expand(len(self._slots), -1, -1)
            visible = torch.cat([visible, own], dim=-1)
            places = (self._tree_of_span, self._slot_of_span)
            call = ReadOn(tokens[self._slots], positions[self._slots], visible, places, self._cache)
            tokens = choose(self._student(call))
        self._restore(layers)
        finished = [ids[-1:] == [self._end_id] for ids in answers]
        return [Generated(ids[:-1] if ended else ids, ended) for ids, ended in zip(answers, finished, strict=True)]

    def _rest_of_options(self, flat: Sequence[Continuation]) -> Tensor:
        """(options,) log-probability of all tokens of each option but its first."""
        device = self.log_probs.device
        total = torch.zeros(len(flat), device=device)
        long = [(place, number, option) for place, (number, option) in enumerate(flat) if len(option) > 1]
        if not self._lockstep.any(bool(long)):
            return total
        if not long:  # another process has some
            nowhere = torch.zeros(1, dtype=torch.long, device=device)
            self._read_options([], [], 1, (nowhere, nowhere))
            return total
        # The last token of an option predicts nothing that is scored, so it is not read: an option of n tokens takes
        # n - 1 slots of its tree.
        used = [0] * len(self.row.trees)
        queries: list[tuple[int, int]] = []  # tree and slot of every token that predicts another
        predicted: list[tuple[int, int]] = []  # place of its option, and that other token
        starts: list[tuple[int, int]] = []
        for place, number, option in long:
            tree = self.row.spans[number].tree
            starts.append((tree, used[tree]))
            queries += [(tree, used[tree] + step) for step in range(len(option) - 1)]
            predicted += [(place, token) for token in option[1:]]
            used[tree] += len(option) - 1
        trees, slots = torch.tensor(queries, device=device).T
        places, tokens = torch.tensor(predicted, device=device).T
        beginnings = [(number, option[:-1]) for _, number, option in long]
        log_probs = self._read_options(beginnings, starts, max(used), (trees, slots)).float().log_softmax(-1)
        return total.index_add(0, places, log_probs.gather(1, tokens[:, None]).squeeze(1))

    def _read_options(
        self,
        options: Sequence[Continuation],
        starts: Sequence[tuple[int, int]],
        width: int,
        places: tuple[Tensor, Tensor],
    ) -> Tensor:
        """Logits (L, vocabulary) after the options' tokens, each option seeing its prompt and itself.

        All options of all branches of a tree lie side by side behind its cache: one call, whatever their lengths.
        """
        num_trees, _, length = self._visible.shape
        device = self.log_probs.device
        ids = torch.zeros((num_trees, width), dtype=torch.long, device=device)
        positions = torch.zeros((num_trees, width), dtype=self._end_positions.dtype, device=device)
        visible = torch.zeros((num_trees, width, length + width), dtype=torch.bool, device=device)
        # Slots that no option fills see themselves alone: a softmax over nothing would be nan.
        visible[:, :, length:] = torch.eye(width, dtype=torch.bool, device=device)
        for (number, tokens), (tree, start) in zip(options, starts, strict=True):
            own = slice(start, start + len(tokens))
            steps = torch.arange(1, len(tokens) + 1, device=device)
            ids[tree, own] = torch.tensor(tokens, device=device)
            positions[tree, own] = self._end_positions[number] + steps.to(positions)
            visible[tree, own, :length] = self._visible[tree, self._slot_of_span[number]]
            visible[tree, own, length + own.start : length + own.stop] = (steps[:, None] >= steps[None]).bool()
        # Scoring must not move what generation goes on from: both start from the cache as the row left it.
        layers = self._snapshot()
        logits = self._student(ReadOn(ids, positions, visible, places, self._cache))
        self._restore(layers)
        return logits

    def _trees_to_rows(self) -> None:
        """Turn the cache of one packed row into one row per tree, padded behind: (T, heads, K, head size).

        Behind a packed row every new token would be compared with all trees' keys only to have most of them masked.
        """
        bounds = [(tree.start, tree.end) for tree in self.row.trees]
        if len(bounds) == 1:
            return
        for layer in self._layers:
            for name in ("keys", "values"):
                packed = getattr(layer, name)[0].transpose(0, 1)
                padded = pad_sequence([packed[start:end] for start, end in bounds], batch_first=True)
                setattr(layer, name, padded.transpose(1, 2))

    def _prompt_visibility(self) -> Tensor:
        """(T, slots, K) bool: what the end of each branch's last prompt sees; a slot is a branch of its tree.

        Where the row was read with its answers, they lie behind the prompt's end and stay unseen.

        Trees with fewer branches repeat their first one, whose answer is not read from there.
        """
        trees, spans, device = self.row.trees, self.row.spans, self.log_probs.device
        by_tree = [[n for n, span in enumerate(spans) if span.tree == tree] for tree in range(len(trees))]
        width = max(map(len, by_tree), default=0)
        filled = [numbers + (numbers[:1] or [0]) * (width - len(numbers)) for numbers in by_tree]
        self._slots = torch.tensor(filled, dtype=torch.long, device=device).reshape(len(trees), width)
        self._tree_of_span = torch.tensor([span.tree for span in spans], dtype=torch.long, device=device)
        slot_of_span = [by_tree[span.tree].index(number) for number, span in enumerate(spans)]
        self._slot_of_span = torch.tensor(slot_of_span, dtype=torch.long, device=device)
        longest = max(tree.end - tree.start for tree in trees)
        visible = torch.zeros((len(trees), width, longest), dtype=torch.bool)
        for number, tree in enumerate(trees):
            visible[number, :, : tree.prefix_end - tree.start] = True
            for slot, span in enumerate(filled[number] if by_tree[number] else ()):
                visible[number, slot, spans[span].start - tree.start : spans[span].target_start - tree.start] = True
        return visible.to(device)

    def _snapshot(self) -> list[tuple[Tensor, Tensor]]:
        return [(layer.keys, layer.values) for layer in self._layers]  # pyright: ignore[reportReturnType]

    def _restore(self, layers: list[tuple[Tensor, Tensor]]) -> None:
        """Forget what was read since the snapshot; the cache grows by copies, so the old tensors are whole."""
        for layer, (keys, values) in zip(self._layers, layers, strict=True):
            layer.keys, layer.values = keys, values
