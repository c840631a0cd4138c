"""Refusals, missing pictures and errors in the languages that captioners slip into.

Beginnings of answers, as patterns of Python's `re`; English ones are in refusal_patterns.
"""

from __future__ import annotations

ELSEWHERE = "|".join(
    [
        # Chinese
        r"(很|非常|十分|实在|真的)?(抱歉|对不起|對不起|遗憾|遺憾|不好意思)|我(目前|现在|暂时|还|"
        r"是)?"
        r"(无法|不能|無法|看不到|没有办法|没有看到|不会|不可以|一个?(AI|人工智能|语言模型))|"
        r"(无法|無法|不能|未能)"
        r"(识别|識別|提供|描述|查看|看到|显示|处理|回答|确定|判断|生成|加载|访问|打开|辨)|"
        r"作为(一个|一款|一名)?"
        r"(人工智能|AI|语言模型|大模型)|(图片|图像|照片|圖片)(无法|未|加载失败|为空|不存在|"
        r"已损坏|是空白|太模糊|過於|过于模糊)"
        r"|请(您|先|重新|稍后|再次)?(提供|上传|发送|重试|再试|输入|登录)|(没有|未|沒有)(提供|"
        r"看到|收到|找到|检测到|上传)?(图|任何图|照片)"
        r"|(发生|出现|出)(了)?(错误|未知错误)|(错误|異常|异常|出错)(了)?\W*($|[:：])|系统(繁忙|"
        r"错误|异常)|服务器?(繁忙|异常|错误|暂|不可用)"
        r"|请求(过于|太|失败|超时)|(您?的?)?(账户|帐户)?(额度|余额|配额)(已|不足)|不确定|看不清",
        # Japanese
        r"申し訳|すみません|すいません|恐れ入り|恐縮|ごめん|残念ながら|お答えでき|お手伝いでき"
        r"|(この|その|添付の)?(画像|写真|ファイル)(を|が|は)(まだ)?(表示|確認|認識|読み込|見る|"
        r"見え|説明|解析|分析|添付|提供|アップロード)\W?"
        r"[^。]{0,12}(できません|できない|されていません|ません|めません|してください)|(私|"
        r"わたし)(は|に)[^。]{0,20}"
        r"(できません|わかりません|AI|言語モデル)|AI(言語モデル|アシスタント)|(エラー|"
        r"問題)が(発生|起き)|エラー\W*[:：]|画像を(アップロード|添付|提供|送)",
        # Korean
        r"죄송|미안|유감|안타깝게도|아쉽게도|(이|해당|첨부된)? ?(이미지|사진|그림)(를|을|가|"
        r"이)? ?[^.]{0,12}"
        r"(없습니다|못|수 없|않습니다|주세요|주시)|저는 [^.]{0,30}(없습니다|못|AI|인공지능|언어)|"
        r"AI (언어 )?모델|오류(가|\W*[:：])|"
        r"에러(가|\W*[:：])|요청이 너무|할당량",
        # German
        r"(es )?tut (mir|uns) (sehr |wirklich )?leid|entschuldig(ung|en sie|e)[,.!]? (aber|ich|"
        r"das|dass|für|bitte|die)"
        r"|(ich )?bedauere?,? |leider (kann|konnte|ist|habe|liegt|wurde|sehe|darf|fehlt|bin|wird|"
        r"sind|lässt|gibt)"
        r"|ich (kann|konnte|darf|sehe|habe|bin|werde|erkenne)( leider| das| dieses| dir| ihnen|"
        r" diese| auf diesem| hier|"
        r" bild| bilder| personen| es| den| die| nur| im| momentan| mir| derzeit| ihre|"
        r" ihr)* (nicht|kein|keine|keinen|keinerlei)\b"
        r"|ich bin (nur |lediglich )?(ein|eine) (ki|sprachmodell|künstliche|textbasiert|reines)|"
        r"als (ein |eine )?(ki|sprachmodell|künstliche)"
        r"|bitte (laden|lade|lad|senden|sende|geben|gib|stellen|stelle|schicken|schick|versuchen|"
        r"versuche|fügen|teilen|hänge|warten)"
        r"|es (ist|war|wurde)( mir| leider)? (nicht möglich|unmöglich|kein bild|"
        r"nicht zu erkennen)|es (liegt|gibt|wurde) kein"
        r"|(das|dieses|ihr|dein|angehängte) (bild|foto) (ist|wurde|konnte|kann|lässt|"
        r"scheint)( leider| zu| völlig| komplett| sich)*"
        r" (nicht|leer|beschädigt|dunkel|unscharf|fehlerhaft)\b|kein (bild|foto) (vorhanden|"
        r"verfügbar|gefunden|angehängt|hochgeladen|wurde|ist|zu) |"
        r"es ist (ein|leider ein) \w*fehler"
        r"|(ein )?(interner |unbekannter )?(server)?fehler (ist |beim |bei )|fehler\s*:|"
        r"zu viele anfragen|(ihr |das )?(kontingent|guthaben) ",
        # French
        r"(je suis |nous sommes )?(vraiment |sincèrement |profondément )?désolée?s?(\W*$|"
        r"[,.!:;]| (mais|je|pour|de|que|cette|il|nous)\b)|(je (vous|"
        r"te) )?(prie|présente|demande)[^.]{0,20}"
        r"(excus|pardon)|excusez[- ]moi|toutes mes excuses|je m'excuse|je regrette|"
        r"malheureusement,? (je|il|cette|l'image|aucune|nous|l')"
        r"|je ne (peux|suis|vois|dispose|puis|saurais|parviens|reconnais|possède|sais|fais|"
        r"pourrai)|je n'(ai (pas|aucun)|arrive|y)"
        r"|je suis (un|une|uniquement|seulement) (ia|intelligence|modèle|assistant)|"
        r"en tant qu[e' ]+(ia|intelligence|assistant|modèle|une ia)"
        r"|(veuillez|merci de|pouvez-vous|pourriez-vous)( me| bien)? ?(fournir|télécharger|"
        r"envoyer|partager|réessayer|joindre|patienter|transmettre)"
        r"|il (m')?(est|était)( malheureusement)? (impossible|difficile de (dire|déterminer|"
        r"voir))|impossible d[e']|il n'(est|y a) (pas|aucune)"
        r" (possible|d'image|image|rien)|aucune (image|photo|description) |(l'image|la photo|"
        r"cette image)( fournie| jointe)? (est|n'est|n'a|ne|semble)"
        r" (vide|pas|illisible|peut|s'affiche|trop|vierge|corrompue|contient rien)|une erreur|"
        r"erreur\s*:|trop de requêtes|votre quota |quota (dépassé|atteint|épuisé)",
        # Spanish
        r"lo (siento|lamento)(\W*$|\W+(pero|no|mucho|por|como|esta|este|la|mi|porque)\b)|"
        r"lamento |perdón,? (pero|no|la|mi|por)\b|perdona|disculp(a|e|as|en)\b|mis disculpas|"
        r"pido disculpas|"
        r"(lamentablemente|desafortunadamente|desgraciadamente|por desgracia)\b|no (puedo|"
        r"podemos|es posible|se puede|se pudo|veo ning|tengo"
        r" (acceso|la capacidad)|me es posible|estoy (autorizado|seguro|en condiciones|"
        r"capacitad)|soy capaz|se ha (proporcionado|podido|adjuntado)|"
        r"se (proporcionó|adjuntó|distingue)|hay (ninguna )?(imagen|foto|nada)|logro|"
        r"has (adjuntado|proporcionado))|(es|me es|resulta) imposible"
        r"|soy (un|una) (ia|modelo|inteligencia|asistente)|como (una? )?(ia|modelo|asistente|"
        r"inteligencia)\b|(por favor|podrías|puedes),? "
        r"(proporcion|sub|envi|envía|compart|adjunt|intent|facilit|carg)|(la|esta) (imagen|"
        r"foto) (no|está|es|parece estar) (se|puede|vacía|en blanco|"
        r"dañada|corrupta|demasiado|disponible|pudo|contiene|visible)|ninguna (imagen|foto)|"
        r"(ha ocurrido|se ha producido|se produjo|ocurrió|hubo) un"
        r"|error (al|en el|interno)\b|demasiadas solicitudes|(has|ha) (superado|excedido|"
        r"alcanzado)",
        # Portuguese
        r"desculp(e|a|em|as)\b|sinto muito|lamento|peço desculpas?|perdão|infelizmente\b|"
        r"(eu )?não (posso|consigo|é possível|tenho (acesso|a capacidade)|"
        r"vejo (nenhum|a)|foi possível|sou capaz|há (nenhuma )?(imagem|foto|nada)|foi (fornecid|"
        r"enviad|anexad)|me é|estou autorizad|dá para)"
        r"|(eu )?sou (um|uma) (ia|modelo|inteligência|assistente)|como (uma? )?(ia|modelo|"
        r"assistente|inteligência)\b|(por favor|poderia),? "
        r"(forneç|envi|carreg|compartilh|tent|anex|faça)|é impossível|(a|esta) (imagem|"
        r"foto) (não|está) (pode|vazia|em branco|foi|corrompida|disponível|carreg|muito)"
        r"|nenhuma (imagem|foto)|(ocorreu|houve|aconteceu) um|erro (ao|interno|de|no)\b|"
        r"muitas solicitações|você (excedeu|atingiu)",
        # Italian
        r"(mi|ci) (dispiace|spiace|rincresce|scuso)|(siamo )?spiacent[ei]|scus(a|i|ami|ate|e)\b|"
        r"chiedo scusa|perdona|purtroppo\b|(io )?non (posso|riesco|è possibile|"
        r"sono in grado|vedo (alcun|nessun|l')|ho (accesso|la capacità)|mi è|è stata|"
        r"c'è (nessuna|alcuna) immagine|è stato possibile|sono autorizzat)"
        r"|(io )?sono (un|una|un'|solo un) ?(ia|modello|intelligenza|assistente)|(come|"
        r"in quanto) (ia|modello|assistente|intelligenza)|(per favore|per piacere|si prega di|"
        r"ti prego di),? "
        r"(fornir|fornisc|caric|invi|condivid|riprov|alleg)|è impossibile|(l'immagine|la foto|"
        r"questa immagine) (non|è) (vuota|bianca|danneggiata|può|è|troppo|si)|nessuna (immagine|"
        r"foto)"
        r"|si è verificato|errore (durante|interno|nel|del)\b|errore\s*:|troppe richieste|"
        r"hai (superato|raggiunto)",
        # Dutch, Swedish, Danish, Norwegian, Finnish, Icelandic
        r"het spijt (me|mij|ons)|mijn excuses|excuses|helaas,? (kan|is|heb|ben|kon|mag|lukt|zie|"
        r"ik|wordt|er|de|dat)\b|sorry,? (maar )?ik\b|ik (kan|ben|"
        r"zie|heb|mag)( helaas| deze| dit| u| je| de| het| op| hier| geen| afbeelding)* (niet|"
        r"geen)\b"
        r"|als (een )?(ai|taalmodel)\b|(upload|deel|stuur|geef)( a\.?u\.?b\.?| alstublieft|"
        r" alsjeblieft)? (de|een|het) |de (afbeelding|foto) (kan|is|kon) (niet|leeg|te|"
        r"beschadigd)|er is (geen|een (fout|interne))"
        r"|(jag är |jag )?(ledsen|tyvärr|beklagar|ber om ursäkt)|förlåt|jag kan (tyvärr )?inte|"
        r"jag ser ing|det går inte att|ett (internt |oväntat )?fel (har|uppstod|inträffade)|"
        r"(jeg )?(er )?(beklager|desværre|dessverre|undskyld|unnskyld|lei for)|jeg (kan|er|"
        r"ser) (desværre |dessverre )?(ikke|ingen)|der opstod|det oppsto(d)?\b|der er (sket|"
        r"opstået) en"
        r"|valitettavasti|pahoittelen|olen pahoillani|anteeksi|en (voi|pysty|näe|osaa)\b|"
        r"tapahtui virhe|því miður|fyrirgefðu",
        # Polish, Czech, Slovak, Hungarian, Romanian, Turkish, Greek and others of Europe
        r"przepraszam|przykro mi|niestety\b|nie (mogę|jestem w stanie|widzę|można|mam (dostępu|"
        r"możliwości)|udało)|jako (model|sztuczna|asystent|ai)\b|proszę (o |przes|podać|załącz|"
        r"spróbuj|udostępn)|wystąpił (błąd|nieoczekiwany)|błąd\s*:"
        r"|omlouvám se|promiňte|je mi líto|bohužel|bohužiaľ|ospravedlňujem|prepáčte|je mi ľúto|"
        r"nemohu|nemůžu|nemôžem|nelze|došlo k|žiaľ"
        r"|sajnálom|elnézést|sajnos|bocsánat|nem (tudom|tudok|látok|lehet)\b|hiba történt|"
        r"îmi pare rău|ne pare rău|scuze|din păcate|nu (pot|văd|este posibil|am acces)\b|"
        r"a apărut o eroare"
        r"|üzgünüm|maalesef|özür dilerim|kusura bakma|ne yazık ki|(bu )?(görüntüyü|resmi|görseli|"
        r"fotoğrafı) [^.]{0,40}(em|am)(ı|i)yorum|bir (hata|sorun)|lütfen (bir|görs|res|tekrar|"
        r"daha)|hata\s*:"
        r"|λυπάμαι|λυπούμαστε|συγγνώμη|συγνώμη|δυστυχώς|δεν (μπορώ|είναι δυνατ|βλέπω|έχω)|"
        r"παρουσιάστηκε|σφάλμα|žao mi je|oprostite|nažalost|na žalost|ispričavam se|ne mogu\b|"
        r"жао ми је|нажалост|извинявам|съжалявам|за съжаление|не мога|ho sento|ho lamento|"
        r"malauradament|no puc\b",
        # Russian, Ukrainian
        r"извини(те)?|извиня(юсь|емся)|к сожалению|простите|прошу прощения|приношу|сожалею|"
        r"мне (очень )?жаль|(я )?не (могу|вижу|удалось|в состоянии|имею возможности|способен|"
        r"умею|получается)|невозможно|как (ии|языковая модель|искусственный|модель)|"
        r"я (всего лишь |просто )?(ии|языковая|искусственный|чат|не )"
        r"|пожалуйста,? (предостав|загруз|отправ|пришл|прикреп|попробуй|повтор|укаж)|(произошла|"
        r"возникла) (внутренняя |неизвестная )?ошибка|ошибка( сервера| при|\W*[:.])|(изображение|"
        r"фото|картинка|файл) (не|пуст|отсутств|повреж|слишком|недоступ)|слишком много запросов|"
        r"превышен|нет (изображения|картинки|фото)"
        r"|вибач(те|аюсь)?|на жаль|перепрошую|мені (дуже )?шкода|(я )?не (можу|бачу|вдалося)|"
        r"сталася помилка|помилка",
        # Arabic, Persian, Hebrew
        r"(أنا |نحن )?(آسف|اسف|نأسف|أعتذر|اعتذر|نعتذر|للأسف|معذرة|عذر|المعذرة|متأسف)|(أنا )?(لا|"
        r"لم|لن) (أستطيع|يمكنني|أرى|أتمكن|يمكن|أقدر|استطيع|يتم)|غير قادر|ليس (لدي|بإمكاني)|(حدث|"
        r"حصل) خطأ|خطأ|يرجى|الرجاء|من فضلك|كنموذج|بصفتي|لا توجد صورة|(متأسفم|متاسفم|متأسفانه|"
        r"متاسفانه|ببخشید|پوزش|عذرخواهی|شرمنده)|(من )?نمی[\u200c ]?(توانم|بینم)|قادر نیست"
        r"|אני (לא |מצטער|מצטערת|איני)|מצטער|סליחה|לצערי|אינני|אין באפשרותי|לא ניתן|לא (אוכל|"
        r"יכול)|אירעה שגיאה|שגיאה",
        # Vietnamese, Indonesian, Malay, Thai, languages of India, Swahili, Filipino
        r"(tôi )?(rất )?(xin lỗi|rất tiếc|lấy làm tiếc)|tôi (không thể|không có|không nhìn|"
        r"không thấy)|đã xảy ra lỗi|vui lòng|không thể (mô tả|xử lý|xác định|nhìn|xem|tải|"
        r"truy cập|phân tích|nhận)|lỗi\s*:|(mohon )?maaf\b|sayangnya|"
        r"saya (tidak (bisa|dapat|mampu)|minta maaf|mohon maaf)|tidak (dapat|bisa) |"
        r"terjadi kesalahan|silakan |harap "
        r"|ขออภัย|ขอโทษ|เสียใจ|(ฉัน|ผม|ดิฉัน)?(ไม่สามารถ|มองไม่เห็น)|เกิดข้อผิดพลาด|กรุณา|โปรด"
        r"|(मुझे |मैं )?(क्षमा|माफ़|माफ|खेद|अफ़सोस|अफसोस)|मैं [^।]{0,60}(नहीं|असमर्थ)|दुर्भाग्य|कृपया|"
        r"त्रुटि|দুঃখিত|আমি (দুঃখিত|[^।]{0,40}(পারি না|পারছি না))|ক্ষমা|মাফ|মন্নিক্কவুম|மன்னிக்கவும்|"
        r"క్షమించండి|ക്ഷമിക്കണം|माफ करा|માફ કરશો|ਮਾਫ਼|معذرت|مجھے افسوس|samahani|pole,? (lakini|"
        r"siwezi)|siwezi\b|paumanhin|pasensya|hindi ko (kaya|ma)",
    ]
)
