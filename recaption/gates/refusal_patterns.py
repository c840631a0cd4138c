"""How captioners and servers say that there is no caption: patterns of RE2, each a line of a list.

A refusal, a picture that is missing or shows nothing, an error or a quota in words. Nearly all of
them are told by the answer's first words, so that a caption may mention an error or a quota.
"""

from __future__ import annotations

from recaption.gates.refusal_languages import ELSEWHERE


def any_of(*patterns: str) -> str:
    """One pattern that finds what any of them finds."""
    return "|".join(patterns)


_ABILITY = (
    r"((directly|actually|currently|really|fully|clearly|reliably|physically|possibly|properly|"
    r"also|"
    r"in good conscience|be able to) )*"
    r"(see|view|look|seem|access|open|load|process|analy[sz]e|identify|recogni[sz]e|describe|"
    r"caption|help|assist|provide|comply|fulfill?|answer|tell|determine|make (out|a|an)|create|"
    r"generate|comment|discuss|do (that|this|so)|share|give|offer|write|continue|engage|interpret|"
    r"confirm|perceive|produce|complete|display|read|find|discern|detect|perform|support|fetch|"
    r"retrieve|download|decode|parse|connect|get|render|examine|inspect|handle|say)\b"
)
_NOT_ABLE = (
    r"(can't|cannot|can not|could not|couldn't|won't|will not|wouldn't|am unable to|"
    r"am not able to|'m unable to|'m not able to|was(n't| not) able to|was unable to|"
    r"do not have the ability to|don't have the ability to|"
    r"must decline to|would rather not|'d rather not|'d prefer not to|would prefer not to|"
    r"refuse to|decline to|have to decline|am not allowed to|'m not allowed to|"
    r"am not permitted to|'m not permitted to)"
)
_PICTURE = r"(image|picture|photo(graph)?|photograph|file|attachment)"
_THE_PICTURE = (
    rf"(the|this|that|your|any) ((attached|provided|given|uploaded|supplied|requested|input|"
    rf"submitted|shared) )?{_PICTURE}( (that )?(you('ve)?|i)( have)?)?"
    rf"( (sent|provided|attached|uploaded|shared|see|received|have))?"
)
_FULLY = r"(completely |entirely |totally |fully |just |simply |only |mostly |all )*"
# "I'm Sorry" is also printed on cards.
_GOES_ON = (
    r"(\W*$|[,.;:!…—–-]| (but|i|that|for|about|to|this|the (image|picture|photo)|we|you|if|there|"
    r"can|it)\b)"
)
_TO_SEE = r"(to )?(determine|tell|say|identify|make out|see|know|describe|discern|recogni[sz]e)"

_REFUSES = any_of(
    rf"i('?m| am) (very |so |really |truly |deeply )?(sorry|afraid){_GOES_ON}",
    r"((we|my) )?(sincere )?apolog",
    r"sorry,? (but )?(i|we (can|could|do|are (un|not)|were)|as|this|that|there|the image|no|your|"
    r"about (that|the)|for (that|the))\b",
    rf"(we're|we are) (very |so )?sorry{_GOES_ON}",
    r"i (sincerely |do )?(apologi[sz]e|regret)",
    r"(unfortunately|regrettably|sadly),? "
    r"(i|we|the (image|picture|photo)|this (image|picture|photo)|there is no|there are no|no |"
    r"it is|"
    r"it's|you|your)",
    rf"i ?{_NOT_ABLE} {_ABILITY}",
    rf"we ?{_NOT_ABLE} {_ABILITY}",
    rf"(it looks like |it seems |it appears )?(that )?i ?{_NOT_ABLE} {_ABILITY}",
    rf"(was |were )?(unable to|not able to|cannot|can't|could not|couldn't|failed to|failure to) "
    rf"{_ABILITY}",
    r"i (do not|don't|did not|didn't) (actually |currently |really )?"
    r"(see (any|an|a|the)|have (access|the ability|any|enough|a|an|the)|feel|know what|"
    r"recogni[sz]e|"
    r"identify|provide|describe|receive|support)",
    r"i (have no (access|way|ability|image|picture|idea)|lack the)",
    r"i('m| am) (not comfortable|uncomfortable|"
    r"((just|only|actually|merely) )?(an? )?(large |virtual )?(ai|language|text|chatbot)\b|"
    r"(currently )?(unable|not able))",
    r"i('m| am) not (trained|designed|programmed|equipped|supposed)",
    r"i was not (trained|designed|programmed)",
    r"i must (respectfully )?decline",
    r"i (respectfully |have to |will have to )?(decline|refuse)\b",
    r"my (programming|guidelines|training|capabilities|policy|policies)\b",
    r"i('d| would) be (happy|glad|delighted|pleased) to\b|i('d| would) love to (help|describe)",
    r"i('m| am) (happy|ready|glad|here) to (help|assist|describe)",
    r"(hello|hi|hey)?[!,.]* ?how (can|may) i (help|assist)( you)?( today| further| with [a-z ]+)?"
    r"(\s*[?.!:]|\W*$)",
    r"what (would you like|do you want) me to",
    r"(please|kindly|could you( please)?|can you( please)?) "
    r"(provide|upload|share|attach|send|try|retry|re-?upload|resend|submit|check|paste|include|"
    r"clarify|contact|specify|supply|give)\b",
    r"(this|the|your) (content|request|prompt|response|query|input|answer|output) "
    r"((may|might|appears to|seems to) )?(violates?|goes against|is (not (allowed|supported)|"
    r"blocked|against|inappropriate)|(has been|was|were|is) (flagged|blocked|removed|rejected|"
    r"filtered|denied|withheld|refused)|contains (sensitive|explicit|inappropriate|harmful)|"
    r"(could|can)(not|n't| not) be (processed|completed|fulfilled|generated))",
)
_NOTHING_TO_SEE = any_of(
    rf"(i|we) (only |just )?(see|received?|got|have|can only see) ({_FULLY})?(no|"
    rf"an? {_FULLY}(blank|empty|broken|corrupt(ed)?|black|white)) {_PICTURE}",
    r"there('s| is| was| does not appear to be| doesn't (seem|appear) to be) (no|any|"
    rf"an) {_PICTURE} "
    r"(attached|provided|available|given|uploaded|visible|here|to (see|describe|analy[sz]e)|"
    r"in (your|"
    rf"the|this) (message|request|prompt|chat|conversation))",
    rf"no {_PICTURE}s? (was|is|has been|were|are|have been|found|available|provided|attached|"
    rf"uploaded|given|to)\b",
    rf"no {_PICTURE}\W*$|{_PICTURE} (not|is not|isn't|could not|cannot|can't|un)"
    rf"( be)? ?(found|available|visible|provided|supported|loaded|displayed|shown|rendered|"
    rf"processed|readable)",
    rf"{_PICTURE} (missing|error|failed to load|not found|unavailable|unreadable|loading)\b",
    rf"it (seems|looks like|appears)( that| like)? ?(you|there is no|no|the|your|this) ?"
    rf"(have not|haven't|did not|didn't|forgot|{_PICTURE} "
    rf"(is (missing|blank|empty|not|corrupt|broken|too)|was|did|didn't|has|hasn't|could|failed|"
    rf"may|might|cannot|can't|upload|attached|provided))",
    r"(you|it looks like you|it seems you) (have not|haven't|did not|didn't|forgot to) "
    r"(provided?|attach(ed)?|upload(ed)?|shared?|send|sent|included?)",
    rf"{_THE_PICTURE} (is|was|appears( to be)?|seems( to be)?|looks) {_FULLY}"
    rf"(not |in|un)(accessible|available|visible|supported|provided|loading|displayed|readable|"
    rf"loaded|clear enough|legible|recogni[sz]able|shown|displaying|rendering|attached|viewable)",
    rf"{_THE_PICTURE} (is|was|appears( to be)?|seems( to be)?|looks) {_FULLY}"
    rf"(blank|corrupt(ed)?|broken|missing|illegible|damaged|invalid)\b",
    rf"{_THE_PICTURE} (is|was|appears( to be)?|seems( to be)?|looks) {_FULLY}empty\W*($|[.,;])",
    rf"{_THE_PICTURE} (is|was|appears( to be)?|seems( to be)?|looks) "
    rf"(completely|entirely|totally|all|just|fully) (black|white|dark|gr[ae]y)\W*"
    r"($|[.,;]|(with|and has|and contains) (no|nothing)\b)",
    rf"{_THE_PICTURE} (is|was|appears|seems|looks) (far |much |way )?too "
    rf"(blurry|blurred|dark|small|bright|low|unclear|pixelated|distorted|grainy|noisy)[a-z ,-]* "
    rf"(to|for)\b",
    rf"{_THE_PICTURE} (could not|couldn't|cannot|can't|can not|failed to|did not|didn't|does not|"
    rf"doesn't|will not|won't|has not|hasn't|was not|wasn't|may not( have)?) "
    rf"(be )?(load(ed)?|open(ed)?|display(ed)?|upload(ed)?|process(ed)?|come|show up|"
    rf"read|decoded?|found|retrieved|fetched|downloaded|analy[sz]ed|identified|recogni[sz]ed|"
    rf"described|determined|show (any|anything|enough)|contain (any|anything|enough)|"
    rf"provide enough|appear to (contain|show)|been|rendered?|accessed|viewed|seen|attached?)",
    r"(it is|it's|it was|this is|that is)? ?(not possible|impossible|not feasible)( for (me|"
    r"us))? "
    rf"{_TO_SEE}",
    rf"(it is|it's|it was) (too |very |quite |extremely |rather )?"
    rf"(hard|difficult|unclear|not clear|challenging)( for (me|us))? "
    rf"{_TO_SEE} (what|anything|the (content|subject|nature|details)|exactly|much)",
    rf"(it is|it's|it was) (unclear|not clear|not known|unknown|unsure|uncertain)"
    rf"( from this {_PICTURE})? what\b",
    r"i('m| am) (not sure|unsure|uncertain) (what|how|about|which)",
    r"i (have|had) (trouble|difficulty|difficulties|problems?) ",
    r"(there is|there's|there was|i (can )?see) (absolutely |really )?nothing "
    r"(visible|to (see|describe|be seen|show)|in (the|this) (image|picture|photo)|shown|"
    r"recogni[sz]able|discernible|identifiable|here to|that (can|could) be)",
    r"there (is|are) (no|not enough|insufficient|too little|no clearly) "
    r"((visible|discernible|recogni[sz]able|identifiable|clear|enough|useful|meaningful|visual) )?"
    r"(content|contents|information|detail|details|data|image data|subject|context)\b",
    r"there are no (visible|discernible|recogni[sz]able|identifiable|distinct|clear) "
    r"(objects|elements|features|subjects|things|shapes)",
    r"nothing (is |can be |could be |was )?(visible|seen|shown|discernible|to (see|describe)|"
    r"recogni[sz]ed|identified|recogni[sz]able|identifiable|here)\b",
    r"(the|this|its) (content|contents|subject|image content|scene|main subject)"
    r"( (of|in) (the|this) (image|picture|photo))? (is|are|was|remains?|cannot|can't|could not|"
    r"can not)"
    r" (be )?(unclear|unknown|not (clear|visible|discernible|recogni[sz]able|known)|determined|"
    r"identified|undetermined|indistinguishable|unidentifiable|unrecogni[sz]able|made out|seen)",
    rf"(an? )?({_FULLY})?(blank|corrupt(ed)?|broken|missing) {_PICTURE}\W*$|"
    rf"(an )?empty {_PICTURE}\W*$",
    r"(insufficient|not enough) (information|detail|details|data|context|visual)",
    r"no (clear |visible |discernible |recogni[sz]able |further |useful |specific )?"
    r"(description|caption|content|contents|text|image|data|answer|response|output|information|"
    r"objects?|details?|subject|comment)( is| was| are| were| can be| could be)?"
    r"( available| provided| found| given| detected| generated| possible| visible)?\W*$",
    r"(n/?a|none|null|nil|nan|undefined|unknown|unclear|undetermined|not (available|applicable|"
    r"sure|"
    r"clear|visible)|error|empty|blank|nothing|no|unable|failed|failure|sorry|\[object object\]|"
    r"[\[<(](no|empty|blank|missing|null|none|error|redacted|removed|unavailable|image|"
    r"unk)\b[^\])>]*"
    r"[\])>])\W*$",
)
_FAULT = any_of(
    r"[\[(*<]?(error|err|exception|fatal|failure|http error|api error|server error|runtime ?error|"
    r"value ?error|type ?error|key ?error)[\])*>]?\s*[:\]*|>](\s|\W|$)",
    r"[\[(](error|failed|failure|exception|timeout|timed out|warning|system|refus|block|filter|"
    r"content filter)[^\])]{0,60}[\])]",
    r"error (code|status|type|id)?\s*[:#=-]?\s*[45]\d\d\b\W*($|[:,.-]|(while|when|from|in|bad|too|"
    r"internal|service|gateway|unauthorized|forbidden|not found|payment|unprocessable)\b)",
    r"error (code|while|when|processing|loading|opening|reading|decoding|generating|fetching|"
    r"occurred|calling|communicating|connecting|retrieving|during|analy[sz]ing|from server|"
    r"parsing|"
    r"downloading)\b",
    r"(http|https|status)([/ ]1\.1|[/ ]2)?( code| status| error)*\s*[:=-]?\s*[45]\d\d\b",
    r"[45]\d\d\s*[:-]?\s*(bad request|unauthorized|payment required|forbidden|not found|"
    r"request timeout|payload too large|too many requests|internal server error|bad gateway|"
    r"service unavailable|gateway time-?out|client error|server error)\b",
    r"(an?|the following|some|unknown|unexpected|an? (unexpected|unknown|internal|server|api|"
    r"network))( \w+)? ?(error|exception|problem|issue|failure) "
    r"(has |have |was |were |is )?(occurred|happened|encountered|detected|raised|been)",
    r"(an )?(internal|unexpected|unknown|server|network|api|inference|generation|model|system|"
    r"upstream|gateway|connection|proxy|authentication|decoding|parsing)( server| connect)? "
    r"(error|failure|exception)\W*($|[:.,(]|[-–—]|(has )?occurred|while|when|please|or\b)",
    r"(bad gateway|gateway time-?out|service( is)?( temporarily| currently)? unavailable|"
    r"too many requests|request time-?out|payment required|bad request|not found|"
    r"internal server error|unauthorized|forbidden|access denied|permission denied)"
    r"\W*($|[:(]|please|try|you|add (a payment|credits|funds))",
    r"(rate|usage|request|token|api|daily|monthly|hourly|free|message)([ -](rate|usage|tier|"
    r"request))?"
    r"[ -]limits?( has been| have been| was| is)? (reached|exceeded|hit|error)",
    r"(your |the |api |daily |monthly |free |current |account |token |usage )*"
    r"(quota|credits?|balance|budget|allowance|subscription|plan|trial|api key|token|account|"
    r"license)"
    r"( has been| have been| has| have| is| are| was| balance)*"
    r" (exceeded|exhausted|reached|depleted|insufficient|used up|expired|ended|run out|invalid|"
    r"suspended|disabled|deactivated|empty|too low|not (active|valid|sufficient|enough))",
    r"(insufficient|not enough|no (more|remaining)|out of|exceeded( your)?( current)?|invalid|"
    r"incorrect|missing|expired) (quota|credits?|balance|funds|tokens|api[ _-]?keys?)\b",
    r"(insufficient_quota|rate_limit_exceeded|rate_limit|invalid_api_key|server_error|"
    r"content_filter|context_length_exceeded|model_not_found|overloaded_error|"
    r"internal_server_error|invalid_request_error|content_policy_violation)\b",
    r"you('ve| have| are| will)?( already| currently| now)? (reached|exceeded?|hit|used( up)?|"
    r"run out|"
    r"ran out|being rate|sending|made|do not have|don't have)( of)? "
    r"(your|the|all|its|limited|too many|requests|an?|enough|any|access|permission|credits?)\b",
    r"(you must|you need to|you'll need to|please) (log ?in|sign ?in|upgrade|subscribe|top up|"
    r"authenticate|add (a payment|credits|funds)|wait (a|and|before|until|while)|slow down|"
    r"retry|refresh|reload|"
    r"check your (plan|connection|network|internet|api))\b",
    r"upgrade (your plan|to (pro|plus|premium))\b",
    r"(the |this |our )?(ai )?(model|server|service|system|engine|api|backend|worker|provider)"
    r"( `?[\w./:-]+`?)? (is|are|was|does|has|did|could|can|cannot|failed|returned|timed)"
    r"( \w+)? ?(currently |temporarily |not |too )*"
    r"(overloaded|unavailable|busy|loading|down(\W*$|[.,]| for)|offline|exist|support|found|"
    r"responding|respond|"
    r"at capacity|be reached|timed out|time out|out of (memory|service|order|capacity)|"
    r"encountered|an error|an empty|available|"
    r"under maintenance|experiencing)\b",
    r"(model|content|response|request|output|message|prompt|file|url) (is |was )?(not (loaded|"
    r"found|"
    r"available|allowed|supported|ready|accessible)|blocked|filtered|flagged|removed|withheld|"
    r"denied|"
    r"unavailable)\W*($|[:.,(])",
    r"(this|the) model('s maximum| does not support| doesn't support| only supports)",
    r"(image|images|image input|image inputs|vision|multimodal( input)?|picture|file|media|format|"
    r"image format|image type|image url)s? (is|are) (not|un)[ -]?"
    r"(supported|allowed|accepted|enabled|available)",
    r"(unsupported|invalid|unknown|unrecogni[sz]ed|corrupted|corrupt|malformed) "
    r"(image|file|media|picture|format|input|request|response|url|mime|base64|argument|model)\b"
    r"[a-z ]{0,20}\W*($|[:.,(])",
    r"(request|operation|connection|generation|task|call|query|response|inference|process|job|"
    r"upload|"
    r"download|read|session)( has| was| is| timed| time| to [\w. ]+)? ?"
    r"(failed|timed out|time-?out|out|refused|reset|aborted|cancell?ed|rejected|denied|closed|"
    r"interrupted|expired|blocked|throttled|error)\W*($|[:.,(]|[-–—]|please|try|after|by|due|"
    r"while|"
    r"with|because)",
    r"time(d)? ?-?out( error)?\W*($|[:.(]|after|while|waiting)",
    r"(something|things) went wrong|(oops|whoops|uh[- ]oh|oh no)[!,. ]+(something|an error|it|"
    r"we|i|"
    r"there|looks|that|the)\b",
    r"cuda (out of memory|error)|out of memory|oom\b|traceback \(most recent|segmentation fault|"
    r"stack trace|torch\.|runtimeerror|valueerror|httperror|exception in|null ?pointer",
    r"(maximum|max|the) (context|prompt|input|token)( length)? (length |limit |size )?"
    r"(exceeded|is|has been|of this model|too long)",
    r"(prompt|input|request|image|file|payload|context|message) (is |was )?too (long|large|big)\b",
    r"(no|empty|null|invalid) (response|output|completion|choices|candidates|content|result)s?"
    r"( (was|were|returned|received|from|generated|available|in)[a-z ]*)?\W*$",
    r"(undefined|null|none) is not\b|undefined\W*$",
)


REFUSAL_OPENING = rf"(?i)\A\W{{0,99}}(?:{any_of(_REFUSES, _NOTHING_TO_SEE, _FAULT, ELSEWHERE)})"
"""For Python's `re`: what stands at the beginning of an answer that is no caption."""

REFUSAL_ANYWHERE = "(?i)" + any_of(
    r"\bas (an|a) ([a-z-]+ )?(ai|language model|artificial intelligence|text-based model)\b"
    r"( (model|assistant|system))?,? (i|and)\b",
    r"\bas (an ai\b|a large language model\b|a language model\b)",
    rf"\bi('m| am) (unable|not able) to {_ABILITY}",
    rf"\b(i|we) ?{_NOT_ABLE} (assist|help) ",
    r"\b(cannot|can't|unable to) (assist|help) with (that|this)",
    r"\b(against|violates?) (my|our|the) (content |usage |safety )?(guidelines|polic(y|ies))",
    r"\bplease (try|retry|re-?try) (again|later|uploading|sending|with another)",
    rf"\b(not possible|impossible|unable|difficult|hard)( for me)? {_TO_SEE} what (the|this|"
    r"is (shown|in)|"
    rf"exactly)",
    rf"\b(please|could you|can you) (provide|upload|re-?upload|share|attach|send|resend)( me)? "
    rf"(the|an?|another|a different|a clearer|your|more) ([a-z-]+ )?{_PICTURE}",
)
