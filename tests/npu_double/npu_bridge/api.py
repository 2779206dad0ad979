"""hccl.manage.api: who this rank is, once HCCL has been started."""

from npu_bridge.world import Mistake, current, world

WORLD = "hccl_world_group"


def _asked(group):
    if group != WORLD:
        raise Mistake(f"the group {group} was never made")
    if not current().started or current().ended:
        raise Mistake("HCCL was asked for a rank before initialize_system ran")


def get_rank_id(group=WORLD):
    _asked(group)
    return current().number


def get_rank_size(group=WORLD):
    _asked(group)
    return world().size


def get_local_rank_id(group=WORLD):
    return get_rank_id(group) % 8


def get_local_rank_size(group=WORLD):
    return min(get_rank_size(group), 8)
