from tests.runtime.conftest import bundle, edited, expected, network, parts, weights, xs  # noqa: F401
