"""Why a server's text ended: the words of its `finish_reason`, in one spelling."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

# As OpenAI, Anthropic, Cohere, Gemini, TGI, SGLang, llama.cpp and others say it.
_WHOLE = """
stop stopped end_turn end_of_turn eos eos_token eot end_of_text end_of_sequence endoftext im_end end
stop_sequence stop_token stop_word stop_str stop_string stopped_eos stopped_word complete completed
done finish finished success succeeded normal natural none null
"""
_CUT_OFF = """
length model_length max_length max_tokens max_token token_limit tokens_limit max_new_tokens
max_output_tokens max_completion_tokens max_tokens_reached length_limit limit stopped_limit
output_limit context_length context_length_exceeded model_context_window_exceeded error_limit
max_context_length truncated incomplete
"""
_FILTERED = """
content_filter content_filtered safety image_safety blocklist prohibited_content recitation spii
sensitive guardrail_intervened guardrails error_toxic moderation moderation_blocked content_policy
content_policy_violation policy_violation filtered blocked responsible_aipolicy_violation
data_inspection_failed image_content_policy_violation
"""
_BROKEN_OFF = """
error abort aborted cancelled canceled user_cancel network_error timeout time_limit other
insufficient_system_resource overloaded not_finished server_error internal_error load preempted
unavailable
"""
WHOLE = frozenset(_WHOLE.split()) | {""}
"""The text is whole; older servers say nothing."""

CUT_OFF = frozenset(_CUT_OFF.split())
"""A limit ended the text."""

FILTERED = frozenset(_FILTERED.split())
"""A filter withheld the text, or what would have followed; also the names of such errors."""

BROKEN_OFF = frozenset(_BROKEN_OFF.split())
"""The server stopped working on the text; another try may go better."""

# A server may say anything.
_CHARACTERS = 80


def finish_word(finish: Any) -> str:
    """A finish reason in one spelling: FinishReason.MAX_TOKENS and maxTokens are max_tokens.

    Empty where the server gave none.
    """
    if isinstance(finish, Mapping):  # SGLang's own: {"type": "stop", "matched": 2}
        finish = finish.get("type")
    if finish is None:
        return ""
    last = str(finish).strip()[:_CHARACTERS].rpartition(".")[2]
    snake = re.sub(r"(?<=[a-z])(?=[A-Z])", "_", last)
    return re.sub(r"[\s-]+", "_", snake).strip("<|>_ ").lower().removeprefix("finish_reason_")
