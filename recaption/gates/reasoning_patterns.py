"""How captioners think aloud and offer several captions: patterns of `re`, a line each."""

from __future__ import annotations

from recaption.gates.refusal_patterns import any_of

# ---- reasoning -----------------------------------------------------------------------------------

_TO_THINK = (
    r"(think|look|take a|analy[sz]e|describe|start|begin|break|examine|see|craft|write|draft|"
    r"create|"
    r"figure|consider|check|focus|identify|go|observe|compose|formulate|try|make|summari[sz]e|"
    r"carefully|first|now|study|review|list|recall|re-?read|note|provide|tackle|work|outline|"
    r"approach|imagine|parse|generate|come up|count|put)\b"
)
_SO = (
    r"((okay|ok|alright|all right|right|well|hmm+|so|now|first|wait|great|got it|sure|"
    r"yes)\b[,.!:… -]*)*"
)
REASONING = any_of(
    r"(?i:\[/?(think|thinking|thought|reasoning|reflection|analysis)\])",
    r"(?i:[◁⟨]/?think(ing)?[▷⟩])",
    r"(?i:</?(seed:|\w+:)?(think|thinking|thought|thoughts|reasoning|reason|reflection|scratchpad|"
    r"analysis|inner_monologue|plan)\b[^<>]*/?>)",
    # Harmony channels whose tokens were stripped: "analysisWe ...assistantfinalA ..."
    r"(?i:assistant\s{0,2}(final|analysis|commentary)(\b|[A-Z]))|(?i:assistant(final|analysis|"
    r"commentary))",
    r"^[\W_]{0,9}(analysis|commentary|thought|thinking|reasoning)([A-Z]|\s*\n|(\s*to=))",
    r"(?i:^[\W_]{0,9}(my )?(chain of thought|chain-of-thought|thinking( process)?|"
    r"thought( process)?s?|"
    r"reasoning( process)?|analysis|internal monologue|scratchpad|step 1|step one|"
    r"思考(过程|過程)?|推理(过程)?|分析|pensamiento|razonamiento|raciocínio|raisonnement|"
    r"réflexion|"
    r"überlegung(en)?|gedankengang|ragionamento|рассуждени[ея]|размышлени[ея]|생각)\s*(:|：))",
    r"(?i:^[\W_]{0,9}(final (answer|caption|response|description|output)|the final (answer|"
    r"caption)( is)?)"
    r"[\W_]{0,9}:)|(?i:[\n.][\W_]{0,9}(final (answer|caption|response|description|output)|"
    r"so the final)\b[\W_]{0,9}:)",
    rf"(?i:^[\W_]{{0,9}}{_SO}(let me|let's|let us|lemme|allow me to) {_TO_THINK})",
    rf"(?i:^[\W_]{{0,9}}{_SO}(i|we) (need|have|want|should|must|will|would|can|could|am going|'ll|"
    r"'m going|"
    r"are going|shall|might|could)( now| first| also| just| probably)?( to)? "
    r"(describe|write|look|create|produce|output|give|craft|generate|analy[sz]e|think|identify|"
    r"start|"
    r"begin|focus|mention|provide|respond|answer|make sure|consider|caption|compose|draft|note|"
    r"avoid|"
    r"figure|summari[sz]e|carefully|follow|keep|be (concise|brief|careful)|come up|examine|"
    r"check)\b)",
    rf"(?i:^[\W_]{{0,9}}{_SO}i('ll| will|'m going to|'d) (describe|write|look|start|begin|"
    r"analy[sz]e|think|"
    r"craft|give|provide|focus|create|go|do|try|keep|make)\b)",
    rf"(?i:^[\W_]{{0,9}}{_SO}the user('s)? (wants|want|asked|asks|is asking|has asked|would like|"
    r"requests?|"
    r"requested|is requesting|has requested|provided|has provided|uploaded|has uploaded|sent|gave|"
    r"shared|request|query|instructions?|prompt|message|needs (me|us|a (caption|description|short|"
    r"brief|detailed|one)))\b)",
    r"(?i:^[\W_]{0,9}(okay|ok|alright|hmm+|got it|right)\b[,.!… -]+(so|i|the (image|picture|"
    r"photo|user|"
    r"task)|"
    r"this (image|picture|photo|is)|looking|first|now|here|what|we|that)\b)",
    r"(?i:^[\W_]{0,9}(hmm+|um+|uh+)\b[,.…])",
    r"(?i:^[\W_]{0,9}(first|firstly|to (start|begin)( with)?|to (describe|caption|answer|create|"
    r"write)[^.,]{0,60}),? "
    r"(i|let me|we)('ll| will| need| should| must| have| can| want| look| see)\b)",
    r"(?i:^[\W_]{0,9}(my|the|our) (task|goal|job|instruction|objective|role) (here )?(is|says|"
    r"asks|"
    r"requires) "
    r"(to (describe|write|caption|generate|provide|create|analy[sz]e|produce|give|look)|that i|"
    r"me to|"
    r"for me|a (caption|description))\b)",
    r"(?i:\b(wait,|hmm,|let me (re|double[- ]?check|think|count again)|actually, (let me|i)|"
    r"on second thought"
    r"|i('ll| will| need to| should| must) (now )?(write|craft|compose|describe|mention|produce|"
    r"output|double[- ]check|avoid) (the|it|this|that|a|an|one)\b))",
    # The same in the languages that captioners think in.
    r"(?i:^[\W_]{0,9}(好的?|嗯+|首先|那么|好吧)[，,。！ ]*(我|让我|用户|这|首先|现在|接下来|图)|"
    r"^[\W_]{0,9}(用户|使用者)(希望|要求|想|让|需要|提供|上传|发)"
    r"|^[\W_]{0,9}(我(需要|要|应该|来|先|得)|让我|让我们|我们(需要|来|要)))",
    r"(?i:^[\W_]{0,9}(まず|では|さて|えーと|うーん)[、,]?[^。]{0,30}(見て|考え|分析|説明|確認|"
    r"必要)|"
    r"^[\W_]{0,9}ユーザー(は|が|の))",
    r"(?i:^[\W_]{0,9}(음+|자|먼저|우선|좋아|알겠)[,. ][^.]{0,40}(살펴|생각|분석|설명|봐|보자|"
    r"필요)|"
    r"^[\W_]{0,9}사용자(가|는|의))",
    r"(?i:^[\W_]{0,9}(okay|ok|gut|also|hm+|zuerst|zunächst|alles klar)\b[,.! ]+(ich|lass|lassen|"
    r"der (nutzer|benutzer)|wir|zuerst|schauen|mal|das bild|muss|sehe)"
    r"|^[\W_]{0,9}(der|die) (nutzer|nutzerin|benutzer|user) (möchte|will|hat|bittet|fragt)|"
    r"^[\W_]{0,9}(lass(en sie)? (mich|uns)|ich (muss|sollte|soll|werde|will) (nun |jetzt |zuerst |"
    r"das bild |ein |eine |den )?[^.]{0,40}(beschreib|schreib|analys|formulier|anschau|überleg)))",
    r"(?i:^[\W_]{0,9}(d'accord|bon|alors|ok|okay|hum+|voyons|tout d'abord|d'abord)\b[,.! ]+(je|"
    r"voyons|"
    r"l'utilisateur|nous|regardons|laisse|commen|il faut|j'ai|l'image)|^[\W_]{0,9}(voyons|"
    r"l'utilisat(eur|rice) (veut|demande|souhaite|a)|je (dois|vais) |laissez?-moi))",
    r"(?i:^[\W_]{0,9}(vale|bien|bueno|de acuerdo|ok|okay|veamos|primero|a ver|"
    r"hm+)\b[,.! ]+(déjame|voy|"
    r"necesito|tengo|el usuario|vamos|veamos|debo|la imagen|primero)|"
    r"^[\W_]{0,9}(el usuario (quiere|"
    r"pide|ha|me|desea|solicita)|déjame|déjenme|veamos|necesito |debo (describir|escribir)|"
    r"voy a |tengo que ))",
    r"(?i:^[\W_]{0,9}(certo|ok|okay|bem|primeiro|vamos|então|va bene|allora|prima|vediamo|"
    r"bene)\b[,.! ]+(vou|preciso|deixe|o usuário|vamos|devo|l'utente|lascia|devo|vediamo|ho|la|"
    r"a imagem|fammi)|^[\W_]{0,9}(o usuário (quer|pede|pediu|deseja|solicit)|deixe-me|"
    r"preciso (descrever|escrever)|vou (descrever|analisar|escrever|começar)|l'utente (vuole|"
    r"chiede|ha)|fammi |lasciami|devo (descrivere|scrivere)|vediamo))",
    r"(?i:^[\W_]{0,9}(хорошо|итак|ладно|так|хм+|сначала|ок)[,.! ]+(я|мне|давайте|давай|"
    r"пользовател|"
    r"нужно|сначала|нам|посмотр|это|на изобр)|^[\W_]{0,9}(пользователь (хочет|просит|попросил|"
    r"запрос|"
    r"предостав)|давайте |мне (нужно|надо)|нужно (описать|написать|составить)|я (должен|буду|"
    r"опишу|сначала)))",
    r"(?i:^[\W_]{0,9}(oké|ok|okay|goed|eerst|laten we|dobrze|ok|tamam|önce)\b[,.! ]+(ik|laat|"
    r"de gebruiker|laten|muszę|użytkownik|najpierw|kullanıcı|görüntü)|"
    r"^[\W_]{0,9}(de gebruiker (wil|"
    r"vraagt)|laat me|użytkownik (chce|prosi)|kullanıcı (istiyor|benden)|muszę opisać))",
    r"(?i:^[\W_]{0,9}(حسنًا|حسنا|أولاً|أولا|طيب)[،, ]|^[\W_]{0,9}المستخدم (يريد|يطلب|طلب)|"
    r"^[\W_]{0,9}(ठीक है|अच्छा|"
    r"पहले)[,।  ]|^[\W_]{0,9}(उपयोगकर्ता|यूज़र)|^[\W_]{0,9}(được rồi|đầu tiên|trước tiên|baiklah|"
    r"pertama)[, ]|"
    r"^[\W_]{0,9}(người dùng (muốn|yêu cầu)|pengguna (ingin|meminta)))",
)

# ---- options -------------------------------------------------------------------------------------

_OPTION = (
    r"(option|caption|version|alternative|choice|variant|variation|description|suggestion|title|"
    r"candidate|draft|possibility|answer|response|idea|"
    r"möglichkeit|variante|vorschlag|beschreibung|bildunterschrift|titel|opción|alternativa|"
    r"versión|"
    r"descripción|título|légende|proposition|titre|opzione|versione|descrizione|didascalia|opção|"
    r"versão|legenda|descrição|optie|versie|opcja|wersja|seçenek|вариант|описание|версия|подпись|"
    r"lựa chọn|phương án|opsi|pilihan|alternativ|الخيار|خيار|विकल्प|选项|方案|版本|描述|标题|選項|"
    r"オプション|案|候補|キャプション|옵션|선택지|버전|캡션|설명)"
)
_ONE = (
    r"(#|n[o°º.]+ ?)?(1|a|i|one|eins|uno|una|un|um|uma|een|jeden|bir|один|первый|一|１|"
    r"①|الأول|الأولى)"
)
_TWO = (
    r"(#|n[o°º.]+ ?)?(2|b|ii|two|zwei|dos|deux|due|dois|duas|twee|dwa|iki|два|второй|"
    r"二|２|②|الثاني|الثانية)"
)
_SEVERAL = (
    r"(two|three|four|five|six|ten|[2-9]|10|a few|some|several|multiple|various|different|"
    r"a couple( of)?|"
    r"zwei|drei|vier|fünf|einige|mehrere|ein paar|verschiedene|dos|tres|cuatro|cinco|algunas|"
    r"algunos|"
    r"varias|varios|deux|trois|quatre|cinq|quelques|plusieurs|due|tre|quattro|cinque|alcune|"
    r"alcuni|"
    r"diverse|dois|duas|três|quatro|algumas|alguns|várias|vários|drie|enkele|een paar|"
    r"verschillende|"
    r"два|две|три|четыре|пять|несколько|kilka|trzy|dwie|iki|üç|birkaç|beberapa|tiga|một vài|ba|"
    r"vài)"
)
OPTIONS = any_of(
    r"(?i:(^|\n|"
    rf"[:.!?。：]\s?)[\W_]{{0,9}}{_OPTION}\s*{_ONE}[\W_]{{0,3}}(\([^)\n]*\)[\W_]{{0,3}})?["
    r":：.)–—-]"
    rf"(.|\n)*[\s.!?。][\W_]{{0,9}}{_OPTION}\s*{_TWO}[\W_])",
    rf"(?i:(^|\n)[\W_]{{0,9}}{_ONE}[.)、]? ?{_OPTION}[\W_]{{0,9}}[:：](.|"
    rf"\n)*\n[\W_]{{0,9}}{_TWO}[.)、]? ?{_OPTION}[\W_]{{0,9}}[:：])",
    r"(?i:^[\W_]{0,9}((sure|certainly|of course|absolutely|okay)[\W_]+)?(here('s| is| are)|"
    r"below are|"
    r"these are|i have|"
    r"i can offer|you (can|could) (use|choose|pick)|choose from|pick one)[^.:\n]{0,20} "
    rf"{_SEVERAL}[^.:\n]{{0,40}} (options?|captions|alternatives?|descriptions|versions?|"
    r"suggestions?|"
    r"ideas?|ways|variations?|possibilit(y|ies)|choices?|titles|sentences|candidates|drafts|"
    r"examples|"
    r"possible|potential)\b)",
    r"(?i:^[\W_]{0,9}(hier (sind|ein|einige)|aquí (tienes|hay|están|te dejo|van)|estas son|"
    r"voici|voilà|"
    r"ecco|aqui (estão|vão)|"
    r"seguem|hier zijn|вот|oto|işte|berikut|dưới đây)( (te|tienes|ci sono|sono|adalah|là|"
    rf"są))?[^.:\n]{{0,20}} {_SEVERAL} )",
    r"(?i:^[\W_]{0,9}(以下|下面|这里|這裡)(是|有|为|提供)?[^。：\n]{0,8}(几|两|三|四|五|多|"
    r"[2-9]|若干|"
    r"一些)(个|種|种|條|条|句|則|则)?)",
    r"(?i:^[\W_]{0,9}以下[^。\n]{0,6}([2-9]|いくつか|二|三|複数)[^。\n]{0,4}(つ|の|案|候補|"
    r"キャプション)|^[\W_]{0,9}다음은[^.\n]{0,10}(세|두|네|여러|몇|[2-9]))",
    r"(?i:(^|\n)[\W_]{0,9}(or|alternatively|alternative(ly)?|another (option|version|caption|"
    r"possibility)|other options|"
    r"oder|alternativ|ou|ou bien|o|o bien|oppure|of|или|lub|veya|hoặc|atau|或者?|または|"
    r"또는)[\W_]{0,9}\n)",
    r"(?i:[\n.!?]\s*[\W_]{0,9}(alternatively|alternative( (caption|version|description|option))?|"
    r"another (option|version|"
    r"caption)( could be| would be| is)?|or,? (alternatively|more (simply|briefly|poetically|"
    r"concisely)|if you"
    r" prefer))[\W_]{0,3}:)",
    r"(?i:^[\W_]{0,9}(short|brief|concise|simple)( (caption|description|version|option|"
    r"answer))?\s*[\W_]{0,3}:(.|\n)*"
    r"[\s.][\W_]{0,9}(long|longer|detailed|medium|descriptive|creative|poetic|formal)( (caption|"
    r"description|version|"
    r"option|answer))?[\W_]{0,3}:)",
    r"(?i:^[\W_]{0,9}(title|titel|título|titre|titolo|заголовок|标题)[\W_]{0,3}[:：](.|"
    r"\n)*[\s.][\W_]{0,9}(description|caption|"
    r"beschreibung|descripción|légende|descrizione|descrição|описание|描述)[\W_]{0,3}[:：])",
    r"(?i:\b(which (one|option|caption|version|of these) (do|would|should|fits|suits)|"
    r"let me know which|"
    r"(choose|pick|select) the one|would you like (me to|a (different|shorter|longer)|another)))",
    # Numbered sentences in one line: "1. A kite. 2. A red kite. 3. A kite above a beach."
    r"^[\W_]{0,9}1[.)] ?[^\d\n]{6,300}[.;!?\n]\s*2[.)] ?[^\d\n]{6,}",
)
