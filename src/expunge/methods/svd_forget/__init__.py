"""SVD class forgetting: take out of every weight what the forgotten classes need and the retained ones do not."""

from expunge.methods.svd_forget.method import SVDForget

__all__ = ["SVDForget"]
