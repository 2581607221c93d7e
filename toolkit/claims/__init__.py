"""What is claimed of Qwen3-Embedding-4B's dimensions, each claim as a measurement with a verdict.

    from toolkit.claims import measure_claims

    claims = measure_claims("static")        # or "local:Qwen/Qwen3-Embedding-4B", data="my/sets", server="http://.."
    claims.frame()

Measures and decides; what it measures with are the stations below. `page` alone knows HTML.
"""

from toolkit.claims.claim import Claim, Outcome
from toolkit.claims.outcomes import Claims
from toolkit.claims.run import measure_claims

__all__ = ["Claim", "Claims", "Outcome", "measure_claims"]
