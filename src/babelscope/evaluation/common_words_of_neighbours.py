"""The commonest words of Afrikaans, Belarusian, Latin, Marathi and Nynorsk, whose neighbours wordfreq has."""

# fmt: off
NEIGHBOURS_FUNCTION_WORDS = {
    "af": "die van en is in het nie n te dat hy ek sy vir om met op wat by as aan sal my jy dit ons hulle was ook "
    "maar deur word kan uit na oor tot haar hom jou moet een daar so nog dan nou hierdie daardie gaan meer waar "
    "toe ander wees baie jare of hier net wil self jul julle u kon geen geword gehad onder teen sonder tussen",
    "be": "і у ў на не з што я ён да як гэта але па за яна мы яны вы ты а б бы ад яго яе іх мне мяне нас вас для пра "
    "пры каб калі або ці ж дык так ужо яшчэ толькі быў была было былі ёсць быць няма гэты гэтая гэтыя таго той "
    "тое тыя тая які якая якія якое якіх усё усе ўсе ўсё яму ёй там тут пасля вельмі потым можа праз таму каго",
    "la": "et in est non ad ut cum quod qui quae sed si a ab ex de hoc per sunt esse aut nec atque ac quam se etiam "
    "quid enim autem me te nos vos mihi tibi sibi nobis eius eorum quo id ea is hic haec ille illa ipse pro "
    "sine inter post ante apud iam nunc tamen ita sic nam neque erat fuit sum es eo ego tu nihil omnes omnia "
    "suis suum",
    "nn": "og i på er ein å det som til ikkje eg av at for med ei dei han har om var den vi ho men eit seg så frå kan "
    "skal vil ved no eller hadde vart vert meg deg du dykk oss dette denne desse kva kven korleis kvifor når "
    "der her etter over under mot mellom noko nokon nokre mykje meir berre også då enn vere vore vera blei blir "
    "må",
    "mr": "आहे आणि या हे ते तो ती मी तू आम्ही तुम्ही आपण नाही होते होता होती आहेत व की पण तर मग का काय कसे कसा कधी "
    "कुठे कोण जे जो जी हा ही त्या त्याने तिने त्यांनी त्यांना त्याला तिला मला तुला आम्हाला तुम्हाला माझे माझी "
    "माझा माझ्या तुझे तुझी तुझा तुझ्या त्याचे त्याची त्याचा त्याच्या तिचे तिच्या त्यांचे त्यांच्या आमच्या "
    "तुमच्या आपल्या एक एका सर्व काही खूप फार अधिक आता येथे तेथे इथे तिथे साठी करून केले केली केला करण्यात असे "
    "अशा असा अशी असून",
}

NEIGHBOURS_COMMON_WORDS = {
    "af": "jaar dag dae tyd mense man vrou kind kinders huis werk land wêreld lewe stad water hand oë naam woord "
    "woorde taal afrikaans boek skool vriend vriende pa ma ouers seun dogter broer suster geld plek dinge ding "
    "iets niks iemand niemand almal alles altyd nooit weer vandag gister môre vanaand oggend aand middag nag "
    "week maand sê gesê doen gedoen maak gemaak kom gekom gee gegee kry gekry sien gesien weet dink gedink vra "
    "gevra vertel loop lees skryf geskryf speel eet drink slaap leer help begin bly praat hou staan sit lê neem "
    "vind gebruik groot klein goed goeie mooi nuwe nuut ou lank jong eerste tweede laaste twee drie vier vyf "
    "ses sewe agt nege tien min veel genoeg hoe hoekom wie wanneer watter waarom omdat terwyl voordat nadat "
    "sodat indien egter dus daarom byvoorbeeld saam binne buite voor agter langs volgens tydens sedert tog "
    "reeds steeds dalk miskien asseblief dankie ja nee eie hul sou wou behoort suid afrika regering staat "
    "alhoewel hoewel hê lyk kyk glo hoor voel moeilik maklik belangrik verskillende dieselfde elke sommige "
    "vroeg gou hoog",
    "be": "год года гадоў годзе дзень дня дні час часу людзі людзей чалавек чалавека жыццё жыцця свет свеце краіна "
    "краіны горад горада горадзе дом дома хата праца працы працуе вада вады рука рукі вочы імя слова словы мова "
    "мовы мове беларусі беларусь беларускі беларуская беларускай кніга кнігі школа школы дзеці дзяцей маці "
    "бацька сын дачка брат сястра сябар сябры жанчына мужчына сказаў сказала кажа кажуць гаварыць зрабіць "
    "робіць рабіць прыйшоў прыйшла пайшоў ідзе даць бачыць бачыў ведаць ведаю ведае хачу хоча хацеў трэба магу "
    "могуць маглі павінен вялікі вялікая вялікія малы маленькі добры добра новы новая новыя стары малады доўга "
    "першы першая другі другая адзін адна адно два дзве тры чатыры пяць шэсць сем восем дзевяць дзесяць шмат "
    "мала больш менш найбольш заўсёды ніколі зноў сёння учора ўчора заўтра раніцай вечарам ноччу зараз цяпер "
    "хутка амаль нават таксама напрыклад такі такая такія гэтага гэтай гэтым гэтых гэтую якім якой якую нашай "
    "нашы нашых нам вам імі ім сябе сабе свой сваё сваю сваіх сваёй мой мая маё твой ваш нічога нехта нешта хто "
    "дзе куды адкуль чаму навошта колькі паміж перад над пад без супраць каля вакол акрамя падчас паводле бо "
    "хоць пакуль аднак значыць іншы іншыя самы увесь кожны дзякуй калісьці месца справа рэч",
    "la": "homo homines hominum hominem vir viri vita vitam mors mortem deus dei deum deo rex regis regem urbs urbem "
    "urbis roma romani romanorum populus populi populo res rem rerum bellum belli bello pax pacem terra terram "
    "terrae aqua mare caelum dies diem annus annos annis tempus tempore nox nocte pater patris mater filius "
    "filii filia frater puer puella amicus amici magister liber librum verbum verba nomen nomine lingua latina "
    "manus corpus animus animo oculi domus domum via dicit dixit dicunt dicere facit fecit facere fecerunt "
    "venit venire vidit videt videre dedit dare habet habent habere potest possunt posse vult volo scit scio "
    "amat amo erant fuerunt erit sit sint esset magnus magna magnum magni parvus bonus bona bonum malum novus "
    "nova longe primus prima duo tres quattuor quinque decem centum multi multa multis pauci omnis omne omnium "
    "nullus unus una unum alius alii alter semper numquam saepe hodie cras heri mox tum tunc deinde igitur "
    "itaque ergo quoque quidem quia quoniam dum ubi unde cur quomodo quis cuius cui quem quibus quorum eum eam "
    "eos eas ei eis huius illius illi ipsa ipsum meus mea tuus tua noster nostra vester suus sua suam contra "
    "propter super sub trans circa usque satis bene male tantum modo vel sive nisi ne an gloria virtus",
    "nn": "år året åra dag dagen dagar tid tida folk mann kvinne barn born jente gut hus huset heim heime heimen "
    "arbeid arbeidet arbeider skule skulen skular land landet noreg norsk nynorsk verda livet liv byen bygd "
    "bygda stad staden vatn vatnet hand auge auga namn namnet ord orda språk språket bok boka bøker mor far "
    "foreldre bror syster søster ven vener pengar veg vegen seier sa sagt seie gjer gjorde gjort gjere gjera "
    "kjem kom komen kome koma går gjekk gått gjev gir gav gitt gje få får fekk fått ser såg sett sjå veit "
    "visste vite ville vilja kunne skulle måtte burde tek tok teke tatt ta finn fann funne finst les skriv "
    "skreiv skrive snakkar fortel fortalde tenkjer tenkte høyrer høyrde spør spurde bur budde byrja byrjar "
    "startar brukar brukte held heldt står ligg sit stor store stort liten lita små god gode godt ny nye nytt "
    "gamal gamle gammal ung lang lange fyrste første andre siste to tre fire fem seks sju åtte ni ti mange "
    "fleire flest mest lite litt alltid aldri igjen framleis enno alt alle allereie snart saman sjølv sjølve "
    "kvar kvart kvarandre ingen inkje einaste annan anna same slik slike difor derfor sidan fordi dersom medan "
    "sjølvsagt kanskje truleg særleg heilt heile heil ganske svært veldig inne ute opp ned inn ut fram attende "
    "tilbake hjå hos utan gjennom blant kring rundt før hans hennar deira vår vårt våre min mi mitt mine din di "
    "ditt dykkar dagleg viktig viktige ulike vanleg eigen eige vorte blitt bli verte kvinner menneske menneska "
    "jentene gutane tidleg tidlegare seinare høg høgt nokolunde nasjonal offentleg kommunen fylket elles både "
    "korkje anten meiner meinte tykkjer trur trudde treng",
    "mr": "वर्ष वर्षे वर्षी वर्षांत दिवस दिवशी दिवसांत वेळ वेळी वेळा लोक लोकांना लोकांचे लोकांनी माणूस माणसाला जीवन "
    "जीवनात जग जगात जगातील देश देशात देशातील शहर शहरात शहरातील गाव गावात घर घरी घरात काम कामे पाणी हात डोळे नाव "
    "नावाचे शब्द भाषा मराठी महाराष्ट्र महाराष्ट्रात भारत भारतात भारतातील भारतीय पुस्तक शाळा शाळेत मुलगा मुलगी "
    "मुले मुलांना मुलांनी स्त्री पुरुष आई वडील बाबा भाऊ बहीण मित्र मित्रांनी पैसे म्हणाला म्हणाली म्हणतात "
    "म्हणून म्हणजे म्हणाले सांगितले सांगतो बोलत करतो करते करतात करणे करत करावे करायचे करू केल्या केलेल्या येतो "
    "येते येतात आला आली आले जातो जाते जातात गेला गेली गेले दिला दिली दिले देतो देते पाहिले पाहिजे पाहतो दिसते "
    "दिसतो माहीत माहिती शकतो शकते शकतात शकत हवे हवी नको नव्हते नव्हता नव्हती असतो असते असतात असलेल्या असलेले "
    "असल्याने झाले झाला झाली झाल्या होतो होतात होईल राहतो राहते मोठा मोठी मोठे मोठ्या लहान छोटे चांगला चांगले "
    "चांगली चांगल्या नवीन नवे जुने जुन्या पहिला पहिली पहिले पहिल्या दुसरा दुसरे दुसऱ्या शेवटी दोन तीन चार पाच "
    "सहा सात आठ नऊ दहा अनेक इतर थोडे कमी जास्त नेहमी कधीच पुन्हा आज उद्या काल सकाळी संध्याकाळी रात्री लवकर नंतर "
    "पूर्वी आधी वर खाली आत बाहेर मध्ये जवळ दूर समोर मागे बरोबर सोबत विरुद्ध पर्यंत पासून कडे मुळे त्यामुळे कारण "
    "जर जरी तरी तरीही जेव्हा तेव्हा जिथे किंवा परंतु मात्र सुद्धा देखील फक्त केवळ प्रत्येक कोणी कोणते कोणत्या "
    "कोणाला कशी कशाला किती स्वतः स्वतःच्या हो होय धन्यवाद याचे याच्या यांनी यांच्या यांना यामध्ये त्यात यात "
    "ह्या",
}

LACKED_WORDS = {
    "nn": "jeg ikke hva hvem hvor hvordan hvorfor hvis hvilken hvilke hvilket hver hvert noe noen mye fra en et dere "
    "være vært ble gjøre gjør kommer kommet sier vet hun hennes deres flere selv hjemme uke uken morgen natten "
    "boken skole skolen vei veien veier vann melk sammen alene siden annet bedre fortelle fortalte fortsatt "
    "frem høy høye høyt synes spørre spurte heter høre hører hørte spise spiser spiste drikker gutten kvinnen "
    "mennesker menneskene norge mens hverandre regjeringen virkelighet mulighet muligheter vanskelig egentlig "
    "egen egne tidlig tidligere vanlig hel hele helt nå dem bare mer eneste satt leste skrev fikk gikk fant "
    "ønsker trenger husker elsker spiller leker snakker jobber ligger sitter finner finnes skriver leser "
    "forteller legger setter bor tror øye øyne navn penger kjærlighet tiden solen gaten",
}
# fmt: on
"""Common words of a relative that the language writes in another way."""
