"""What the gates look for: patterns, each a line of a list; CHAT is for `re`, the others for RE2.

Collected from issues and readmes of captioners, written in our own words, and tried on the lists
and on human captions in tests/recaption/test_gates.py.
"""

from __future__ import annotations

from recaption.gates.refusal_patterns import any_of

_ROLES = (
    r"user|human|assistant|system|chatgpt|chatbot|bot|"
    r"usuario|usuaria|utilisateur|utilisatrice|benutzer|benutzerin|nutzer|utente|usuário|"
    r"gebruiker|"
    r"użytkownik|kullanıcı|mensch|humano|humain|пользователь|человек|người dùng|pengguna|"
    r"asistente|assistente|assistent|assistentin|asystent|asistan|ассистент|помощник|"
    r"用户|用戶|使用者|助手|助理|人类|ユーザー|アシスタント|사용자|어시스턴트|المستخدم|المساعد|"
    r"مساعد|उपयोगकर्ता|सहायक"
)


# ---- leaks --------------------------------------------------------------------------------------

CHAT = any_of(
    r"<[|｜][^<>]{0,60}[|｜]>",
    r"\[/?INST\]|<</?SYS>>|</?s>",
    r"</?(unk|pad|bos|eos|img|image|video|IMG_CONTEXT|start_of_turn|end_of_turn)>",
    r"<image_soft_token>",
    r"\[/?(IMG(_BREAK|_END)?|SYSTEM_PROMPT|AVAILABLE_TOOLS|TOOL_CALLS|BOS|EOS|PAD|UNK)\]",
    # A role in front: "Assistant: ...", or on a line of its own, as stripped tokens leave it.
    rf"(?i:^[\W_]{{0,9}}({_ROLES}|model|gpt|ai)[\W_]{{0,9}}(:|：|\n))",
    r"^(assistant|model|final)[A-Z]",
    r"\b(USER|ASSISTANT|SYSTEM|HUMAN):",
    # A turn that nobody took: behind a line break or a sentence.
    rf"(?i:(\n|[.!?。！？][\"'”*)]*\s)[\W_]{{0,9}}({_ROLES}|follow-?up( question)?|"
    r"next (question|turn|prompt)|your (turn|answer|response))\s*[\W_]?(:|：))",
    rf"(?i:\n[\W_]{{0,9}}({_ROLES})[\W_]{{0,9}}\n)",
    r"(?i:\n[\W_]{0,9}(question|q)\s*\d*\s*:)",
    rf"(?i:#{{2,}}\s*({_ROLES}|instruction|response|question|answer|input|output|end|task)\b)",
    r"(?i:(^|[.!?]\s)[\W_]{0,9}(question|q|frage|pregunta|pergunta|domanda|вопрос|问|问题|質問|"
    r"질문)\s*(:|：)"
    r"(.|\n){0,200}(answer|a|antwort|réponse|respuesta|resposta|risposta|ответ|答|回答|回答|"
    r"답변)\s*(:|：))",
)
BOILERPLATE = "(?i)" + any_of(
    r"\b(imaginary|hypothetical) (content|elements?)\b",
    r"\bas (you )?requested\b|\bas instructed (by|in) (the|your)\b",
    r"\b(according to|based on|from|in) the alt[- ]text\b",
    r"\bthe alt[- ]text (says|reads|mentions|states|suggests|indicates|describes|provided|is)\b",
    r"\b(the|your) (given|provided|above) "
    r"(caption|prompt|instructions?|text description|alt text)\b",
    r"\bbased on (the|your) (provided|given) |"
    r"\b(based on|according to|from) the (captions?|descriptions?) (provided|given|above|"
    r"of the)\b",
    r"\bi hope (this|that) (helps|description)\b",
    r"\blet me know if (you|there)\b|\bfeel free to (ask|let|reach)\b|\bis there anything else\b",
    r"\b(this|the) (description|caption) (is|was|does|has|adheres|captures|provides|avoids|"
    r"focuses|follows|accurately)\b",
    r"\b(purely|strictly) (factual|objective|descriptive) (description|manner|terms)\b",
    r"\bwithout (any )?(making )?(speculation|assumptions|interpretation) (about|on|or|beyond)\b",
    r"\bchat between a curious (user|human)\b|\byou are a helpful\b",
    r"\bthe user (wants|asked|asks|is asking|has asked|needs) (me|us|(for )?(a|an|the) "
    r"(short |brief |long |detailed |single )?(caption|description|sentence|paragraph))\b",
    r"\b(word|sentence) (count|limit|structure) (of|is|was|:)",
    r"\bnote: (this|the) (description|caption|image)\b",
)

# ---- markup -------------------------------------------------------------------------------------

TAGS = any_of(
    r"</?[a-zA-Z][a-zA-Z0-9_:-]*(\s[^<>]*)?/?>",
    r"&(amp|quot|lt|gt|nbsp|apos|[lr][sd]quo|hellip|[mn]dash|zwn?j|[lr]lm|shy|#\d+|"
    r"#[xX][0-9a-fA-F]+);",
    r"\*\*|__\w|\]\(",
)
BLOCKS = any_of(
    r"```|~~~",
    r"(?m:^\s*#{1,6}\s)",
    r"(?m:^\s*[-*•]\s+\S)",
    r"(?m:^\s*\|.*\|\s*$)",
    r"(?ms:^\s*\d+[.)]\s+\S.*\n\s*\d+[.)]\s+\S)",
    r"^\s*[\[{]\s*[\"'{\[]|^\s*\[\s*[\d.]+\s*,",
    r"^\s*(json|xml|html|yaml)\s*[{<\[]",
    r"^\s*[\"'][\w ]{1,40}[\"']\s*:\s*[\"'\[{\d]",
    # Escapes of JSON that were never read.
    r"\\(n|boxed|text|begin)\b|\\[nt][A-Z\\]|\\u[0-9a-fA-F]{4}|\\x[0-9a-fA-F]{2}|\[0?m|"
    r"\[\d{1,2};\d{1,2}m",
)
URL = "(?i)" + any_of(
    r"https?:/|\bwww\.\w",
    r"\b[\w-]+\.(com|org|net|io|co\.uk|de|fr|ru|cn|html?|php|aspx?|jpe?g|png|gif|webp|svg|pdf)"
    r"(/\S*)?\b",
)
