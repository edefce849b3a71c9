"""What each process has of its own: no two draw the same pairs, each goes on where it was, and gradients meet their like."""

import pytest
import ranks
import ranks_own
import torch
from residuals import agree

import rpm_tutorial as rpm


@pytest.mark.parametrize("scene", ranks_own.SCENES)
def test_what_is_each_process_s_own_is_kept_compared_or_refused(on_two_threads, scene):
    def play(group):
        residual = ranks.Residuals()
        ranks_own.SCENES[scene](residual, group)
        return residual.found

    for found in on_two_threads(play):
        for name, residual in found.items():
            agree(name, residual, 0, tolerance=1e-12)


def test_every_process_saves_and_rank_0_writes_what_all_of_them_load(on_two_threads, tmp_path):
    path = tmp_path / "run.pt"

    def stopped_and_continued(group):
        whole, first, second = (ranks_own.trainer(group) for _ in range(3))
        expected = [row.value for row in whole]
        [first.advance() for _ in range(2)]
        first.save(path)
        second.load(path)
        found = expected[:2] + [row.value for row in second]
        return expected, found, *(list(one.encoder.buffers()) for one in (whole, second))

    for expected, found, *statistics in on_two_threads(stopped_and_continued):
        assert found == expected
        assert all(torch.equal(*both) for both in zip(*statistics, strict=True)), "batch norm saw its own rows"
    assert [file.name for file in tmp_path.iterdir()] == ["run.pt"]
    assert len(rpm.load_checkpoint(path)["processes"]) == 2
