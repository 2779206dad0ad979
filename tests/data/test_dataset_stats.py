"""Statistics of a data set; the printed form is tested in test_inspect_dataset.py."""

from data.dataset_stats import survey
from tests.data.tiny_shards import SIZE, write_set


def test_images_identities_and_sizes_are_counted(tmp_path):
    found = survey(write_set(tmp_path, (5, 4), identities=3))
    assert found.images == 9 and dict(found.sizes) == {(SIZE, SIZE): 9} and not found.broken
    assert sorted(found.identities.items()) == [(0, 3), (1, 3), (2, 3)]
