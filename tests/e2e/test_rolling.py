"""Two daemons behind HAProxy or nginx: restarted and reloaded one after the other under load, without a failed request."""

import pytest

import proxies
import rolling


@pytest.mark.parametrize("kind", sorted(proxies.ALL))
def test_restarts_and_reloads_fail_no_request(world, tmp_path, kind):
    if not proxies.program(kind):
        pytest.skip(f"{kind} is not installed (make proxy-deps)")
    bundles = [world.model_a, world.model_b]
    pair = rolling.Pair(tmp_path, kind, bundles)
    with rolling.Askers(pair.proxy.address, dict(rolling.answers_of(tmp_path, b) for b in bundles)) as askers:
        pair.publish()
        for n in (0, 1):
            pair.reload(n)
        pair.publish()
        for n in (0, 1):
            pair.restart(n)
    pair.stop()
    assert askers.wrong == []
    assert all(count > 0 for count in askers.counts.values()), askers.counts
