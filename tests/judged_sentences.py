"""Sentences for tests of the judge: a dozen or more of each language whose words no list of wordfreq has."""

NEIGHBOURS = {
    "af": ("nl",),
    "az": ("tr",),
    "be": ("ru", "uk"),
    "la": ("it",),
    "lg": ("sw",),
    "mr": ("hi",),
    "nb": ("nn",),
    "nn": ("nb",),
    "sn": ("sw",),
    "st": ("tn",),
    "tn": ("st",),
    "xh": ("zu",),
    "zu": ("xh",),
}
"""Languages that share words with each."""

SENTENCES = {
    "af": """
        Ek weet nie wat ek vandag moet doen nie.
        Die kinders speel elke middag saam in die tuin.
        Ons het gister 'n nuwe motor by die winkel gekoop.
        My suster werk by 'n groot hospitaal in die stad.
        Dit het die hele nag gereën en nou is die paaie nat.
        Hulle sê dat die trein môreoggend vroeg sal vertrek.
        Jy moet jou huiswerk doen voordat jy gaan slaap.
        Kaapstad is een van die mooiste stede in Suid-Afrika.
        Hoekom het jy my nie vroeër daarvan vertel nie?
        Die ou man sit onder die boom en lees sy koerant.
        Water kook by honderd grade en vries by nul grade.
        Sy wil graag volgende jaar aan die universiteit studeer.
        Die regering het aangekondig dat belasting volgende maand verhoog word.
        Fotosintese is die proses waardeur plante sonlig in energie omskep.
        Kan jy asseblief vir my die sout aangee?
        In die agtiende eeu het baie boere die binneland in getrek.
        Meng die meel en suiker, voeg dan die eiers by.
        Rekenaars verwerk inligting veel vinniger as mense.
        Sy verjaarsdag val vanjaar op 'n Sondag.
        Olifante is die grootste landdiere op aarde.
    """,
    "az": """
        Mən bu gün nə edəcəyimi heç bilmirəm.
        Uşaqlar hər gün axşam bağda birlikdə oynayırlar.
        Biz dünən mağazadan yeni bir kitab aldıq.
        Bacım şəhərdəki böyük bir xəstəxanada işləyir.
        Bütün gecə yağış yağdı və indi yollar yaşdır.
        Onlar deyirlər ki, qatar sabah tezdən gələcək.
        Yatmazdan əvvəl ev tapşırıqlarını etməlisən, sonra dincələrsən.
        Bakı Azərbaycanın paytaxtı və ən böyük şəhəridir.
        Niyə bu barədə mənə daha əvvəl demədin?
        Qoca kişi ağacın altında oturub qəzet oxuyurdu.
        Su yüz dərəcədə qaynayır və sıfır dərəcədə donur.
        O, gələn il universitetdə oxumaq istəyir.
    """,
    "be": """
        Сёння вельмі добрае надвор'е, і мы пойдзем у лес.
        Я не ведаю, што мне рабіць заўтра раніцай.
        Мінск з'яўляецца сталіцай і найбуйнейшым горадам Беларусі.
        Мая сястра працуе ў вялікай бальніцы ў цэнтры горада.
        Дзеці гуляюць на двары кожны дзень пасля школы.
        Учора мы купілі новую кнігу пра гісторыю нашай краіны.
        Чаму ты не сказаў мне пра гэта раней?
        Стары чалавек сядзеў пад дрэвам і чытаў газету.
        Яны кажуць, што цягнік прыйдзе толькі ўвечары.
        Вада кіпіць пры ста градусах, а замярзае пры нулі.
        Наступным летам яна хоча паехаць да бабулі ў вёску.
        Гэта была самая прыгожая песня, якую я калі-небудзь чуў.
        Урад абвясціў, што падаткі павысяць у наступным месяцы.
        Фотасінтэз — гэта працэс, падчас якога расліны ператвараюць святло ў энергію.
        Падай мне, калі ласка, соль і хлеб.
        У васямнаццатым стагоддзі шмат сялян жыло ў беднасці.
        Змяшайце муку з цукрам і дадайце яйкі.
        Камп'ютары апрацоўваюць інфармацыю значна хутчэй за людзей.
        Яго дзень нараджэння сёлета прыпадае на нядзелю.
        Сланы — найбуйнейшыя наземныя жывёлы на планеце.
    """,
    "ga": """
        Níl a fhios agam cad ba cheart dom a dhéanamh inniu.
        Bíonn na páistí ag imirt le chéile sa ghairdín gach tráthnóna.
        Cheannaíomar carr nua sa bhaile mór inné.
        Tá mo dheirfiúr ag obair in ospidéal mór sa chathair.
        Bhí sé ag cur báistí aréir agus tá na bóithre fliuch anois.
        Deir siad go dtiocfaidh an traein go luath maidin amárach.
        Caithfidh tú d'obair bhaile a dhéanamh sula dtéann tú a chodladh.
        Is í Baile Átha Cliath príomhchathair na hÉireann.
        Cén fáth nár inis tú dom faoi seo roimhe?
        Bhí an seanfhear ina shuí faoin gcrann ag léamh an nuachtáin.
        Fiuchann uisce ag céad céim agus reonn sé ag náid.
        Ba mhaith léi staidéar a dhéanamh san ollscoil an bhliain seo chugainn.
    """,
    "kk": """
        Мен бүгін не істеу керек екенін білмеймін.
        Балалар күн сайын кешке бақта бірге ойнайды.
        Біз кеше дүкеннен жаңа кітап сатып алдық.
        Менің әпкем қаладағы үлкен ауруханада жұмыс істейді.
        Түні бойы жаңбыр жауды, енді жолдар су болып қалды.
        Олар пойыз ертең таңертең ерте келеді дейді.
        Ұйықтар алдында сен үй тапсырмасын орындауың керек.
        Астана Қазақстанның елордасы және ең әдемі қалаларының бірі.
        Неге сен маған бұл туралы бұрын айтпадың?
        Қарт адам ағаштың түбінде отырып газет оқып отырды.
        Су жүз градуста қайнайды және нөл градуста қатады.
        Ол келесі жылы университетте оқығысы келеді.
    """,
    "la": """
        Puella in horto ambulat et flores pulchros carpit.
        Nescio quid hodie mihi faciendum sit.
        Caesar cum legionibus suis in Galliam profectus est.
        Romani multas urbes in Italia et in Africa condiderunt.
        Pater meus agros colit et mater cenam parat.
        Omnes homines natura scire desiderant, ut ait philosophus.
        Cur mihi antea de hac re nihil dixisti?
        Senex sub arbore sedebat et librum legebat.
        Si vis pacem, para bellum, dicunt milites veteres.
        Discipuli magistrum audiunt quia fabulas bonas narrat.
        Tempus fugit, sed memoria rerum gestarum semper manet.
        Nemo est tam fortis ut mortem numquam timeat.
        Agricola boves ad flumen duxit ut aquam biberent.
        Imperator milites hortatus est ne hostes timerent.
        Luna noctem lumine suo illustrat.
        Cicero orationem contra Catilinam in senatu habuit.
        Si librum invenero, tibi statim mittam.
        Apes mel faciunt atque ceram colligunt.
        Carthago a Romanis tertio bello deleta est.
        Aestate dies longiores sunt quam hieme.
    """,
    "lg": """
        Simanyi kye nteekeddwa okukola leero ku mulimu gwange.
        Abaana bazannyira wamu mu nnimiro buli lunaku akawungeezi.
        Eggulo twagula ekitabo ekipya mu dduuka eddene.
        Mwannyinaze akola mu ddwaliro eddene mu kibuga.
        Enkuba yatonnye ekiro kyonna era kati enguudo nnyogovu.
        Bagamba nti eggaali y'omukka ejja kutuuka enkya ku makya.
        Olina okukola emirimu gyo nga tonnagenda kwebaka.
        Kampala kye kibuga ekikulu ekya Uganda era kinene nnyo.
        Lwaki tewambuulira ku nsonga eno emabegako?
        Omusajja omukadde yali atudde wansi w'omuti ng'asoma olupapula.
        Amazzi gafuuka omukka bwe gaba nga gookya nnyo.
        Ayagala okusomera ku yunivaasite omwaka ogujja.
    """,
    "mi": """
        Kāore au i te mōhio me aha au i tēnei rā.
        Kei te tākaro ngā tamariki i te māra i ia ahiahi.
        I hokona e mātou he motokā hou inanahi.
        Kei te mahi taku tuahine i te hōhipera nui o te tāone.
        I ua te rangi i te pō katoa, ā, kua mākū ngā rori.
        E kī ana rātou ka tae mai te tereina āpōpō i te ata.
        Me oti ō mahi kura i mua i tō haere ki te moe.
        Ko Te Whanganui-a-Tara te tāone matua o Aotearoa.
        He aha koe i kore ai e kōrero mai ki ahau i mua?
        I noho te koroua i raro i te rākau ki te pānui niupepa.
        He mea nui te wai ki ngā tāngata katoa o te ao.
        E hiahia ana ia ki te ako i te whare wānanga ā tērā tau.
    """,
    "mn": """
        Би өнөөдөр юу хийх ёстойгоо мэдэхгүй байна.
        Хүүхдүүд өдөр бүр орой цэцэрлэгт хамт тоглодог.
        Бид өчигдөр дэлгүүрээс шинэ ном худалдаж авсан.
        Миний эгч хотын том эмнэлэгт ажилладаг.
        Шөнөжин бороо орсон тул одоо зам нойтон байна.
        Тэд галт тэрэг маргааш өглөө эрт ирнэ гэж хэлсэн.
        Чи унтахаасаа өмнө гэрийн даалгавраа хийх ёстой.
        Улаанбаатар бол Монгол улсын нийслэл, хамгийн том хот юм.
        Чи яагаад надад энэ тухай өмнө нь хэлээгүй юм бэ?
        Өвгөн модны доор сууж сонин уншиж байлаа.
        Ус зуун хэмд буцалж, тэг хэмд хөлддөг.
        Тэр ирэх жил их сургуульд суралцахыг хүсэж байна.
    """,
    "mr": """
        मला आज काय करावे हे माहीत नाही.
        मुले रोज संध्याकाळी बागेत एकत्र खेळतात.
        आम्ही काल बाजारातून एक नवीन पुस्तक विकत घेतले.
        माझी बहीण शहरातील एका मोठ्या रुग्णालयात काम करते.
        रात्रभर पाऊस पडला आणि आता रस्ते ओले झाले आहेत.
        ते म्हणतात की रेल्वे उद्या सकाळी लवकर येईल.
        झोपायला जाण्यापूर्वी तू तुझा अभ्यास पूर्ण केला पाहिजेस.
        मुंबई हे भारतातील सर्वात मोठ्या शहरांपैकी एक आहे.
        तू मला याबद्दल आधी का सांगितले नाहीस?
        म्हातारा माणूस झाडाखाली बसून वर्तमानपत्र वाचत होता.
        पाणी शंभर अंश तापमानाला उकळते आणि शून्यावर गोठते.
        तिला पुढच्या वर्षी विद्यापीठात शिक्षण घ्यायचे आहे.
        सरकारने पुढील महिन्यापासून कर वाढवण्याची घोषणा केली.
        प्रकाशसंश्लेषण ही वनस्पतींची ऊर्जा निर्माण करण्याची प्रक्रिया आहे.
        कृपया मला मीठ द्याल का?
        अठराव्या शतकात अनेक शेतकरी गरिबीत राहत होते.
        पीठ आणि साखर एकत्र करून त्यात अंडी घाला.
        संगणक माणसांपेक्षा खूप वेगाने माहितीवर प्रक्रिया करतात.
        त्याचा वाढदिवस या वर्षी रविवारी येतो.
        हत्ती हा पृथ्वीवरील सर्वात मोठा भूचर प्राणी आहे.
    """,
    "nb": """
        Jeg vet ikke hva jeg skal gjøre i dag.
        Barna leker sammen i hagen hver ettermiddag.
        Vi kjøpte en ny bil i går, men den var ikke dyr.
        Søsteren min arbeider på et stort sykehus i byen.
        Det regnet hele natten, og nå er veiene våte.
        De sier at toget kommer tidlig i morgen.
        Du må gjøre leksene dine før du går og legger deg.
        Bergen er en av de vakreste byene i Norge.
        Hvorfor fortalte du meg ikke om dette før?
        Den gamle mannen satt under treet og leste avisen sin.
        Vann koker ved hundre grader og fryser ved null.
        Hun vil gjerne studere ved universitetet neste år.
    """,
    "nn": """
        Eg veit ikkje kva eg skal gjere i dag.
        Borna leikar saman i hagen kvar ettermiddag.
        Vi kjøpte ein ny bil i går, men han var ikkje dyr.
        Søstera mi arbeider på eit stort sjukehus i byen.
        Det regna heile natta, og no er vegane våte.
        Dei seier at toget kjem tidleg i morgon.
        Du må gjere leksene dine før du går og legg deg.
        Bergen er ein av dei vakraste byane i Noreg.
        Kvifor fortalde du meg ikkje om dette før?
        Den gamle mannen sat under treet og las avisa si.
        Vatn kokar ved hundre gradar og frys ved null.
        Ho vil gjerne studere ved universitetet neste år.
        Regjeringa har kunngjort at skattane skal aukast neste månad.
        Fotosyntese er prosessen der plantar gjer om sollys til energi.
        Kan du vere så snill å sende meg saltet?
        På attenhundretalet utvandra mange bønder til Amerika.
        Datamaskiner handsamar informasjon mykje raskare enn menneske.
        Fødselsdagen hans fell på ein sundag i år.
        Elefantar er dei største landdyra på jorda.
    """,
    "sn": """
        Handizivi zvandinofanira kuita nhasi mangwanani pabasa pangu.
        Vana vanotamba pamwe chete mubindu zuva nezuva.
        Nezuro takatenga bhuku idzva muchitoro chiri mutaundi.
        Hanzvadzi yangu inoshanda muchipatara chikuru muguta.
        Kwakanaya usiku hwose uye iye zvino migwagwa yanyorova.
        Vanoti chitima chichasvika mangwana mambakwedza kana kwachena.
        Unofanira kuita basa rako rechikoro usati waenda kunorara.
        Harare ndiro guta guru renyika yeZimbabwe.
        Sei usina kundiudza nezvenyaya iyi kare?
        Murume mukuru akanga akagara pasi pemuti achiverenga bepanhau.
        Mvura inovira kana yapisa uye inoita chando kana kuchitonhora.
        Anoda kudzidza payunivhesiti gore rinouya nekuti anofarira mabhuku.
    """,
    "so": """
        Ma garanayo waxa aan maanta samayn lahaa.
        Carruurtu maalin kasta waxay ku wada ciyaaraan beerta.
        Shalay waxaan dukaanka ka soo iibsannay buug cusub.
        Walaashay waxay ka shaqaysaa isbitaal weyn oo magaalada ku yaal.
        Habeenkii oo dhan roob baa da'ayay, haddana waddooyinku way qoyan yihiin.
        Waxay yiraahdeen tareenku wuxuu imaan doonaa berri subax.
        Waa inaad shaqada guriga dhammayso ka hor intaadan seexan.
        Muqdisho waa caasimadda Soomaaliya iyo magaalada ugu weyn.
        Maxaad hore iigu sheegi wayday arrintan maanta?
        Odaygu wuxuu fadhiyay geedka hoostiisa isagoo wargeys akhrinaya.
        Biyuhu waxay ku karaan boqol darajo oo kulayl ah.
        Waxay rabtaa inay sannadka dambe jaamacadda wax ka barato.
    """,
    "sq": """
        Nuk e di çfarë duhet të bëj sot.
        Fëmijët luajnë bashkë në kopsht çdo pasdite.
        Dje blemë një makinë të re në qytet.
        Motra ime punon në një spital të madh në qendër.
        Ra shi gjithë natën dhe tani rrugët janë të lagura.
        Ata thonë se treni do të niset nesër herët në mëngjes.
        Duhet t'i bësh detyrat para se të shkosh për të fjetur.
        Tirana është kryeqyteti dhe qyteti më i madh i Shqipërisë.
        Pse nuk më tregove për këtë më parë?
        Plaku ishte ulur nën pemë dhe po lexonte gazetën.
        Uji vlon në njëqind gradë dhe ngrin në zero.
        Ajo dëshiron të studiojë në universitet vitin e ardhshëm.
    """,
    "st": """
        Ha ke tsebe hore na ke lokela ho etsa eng kajeno.
        Bana ba bapala hammoho serapeng letsatsi le leng le le leng.
        Maobane re rekile koloi e ntjha toropong.
        Kgaitsedi ya ka e sebetsa sepetlele se seholo motseng.
        Pula e nele bosiu bohle mme jwale ditsela di metsi.
        Ba re terene e tla fihla hosane hoseng.
        O lokela ho etsa mosebetsi wa hao wa sekolo pele o robala.
        Maseru ke motse-moholo wa naha ya Lesotho.
        Hobaneng ha o a ka wa mpolella ka taba ena pele?
        Monna-moholo o ne a dutse tlasa sefate a bala koranta.
        Metsi a bela ha a tjhesa haholo mme a hwama ha ho bata.
        O batla ho ithuta yunivesithing selemong se tlang.
    """,
    "tn": """
        Ga ke itse gore ke tshwanetse go dira eng gompieno.
        Bana ba tshameka mmogo mo tshingwaneng letsatsi le letsatsi.
        Maabane re rekile koloi e ntšhwa kwa toropong.
        Kgaitsadiake o dira kwa kokelong e kgolo mo motseng.
        Pula e nele bosigo jotlhe mme jaanong ditsela di metsi.
        Ba re terena e tla goroga ka moso phakela.
        O tshwanetse go dira tiro ya gago ya sekolo pele o robala.
        Gaborone ke motsemogolo wa lefatshe la Botswana.
        Ke ka ntlha yang o sa mpolelela ka kgang e pele?
        Monnamogolo o ne a dutse fa tlase ga setlhare a buisa lekwalo.
        Metsi a bela fa a le bolelo thata mme a gatsela fa go le tsididi.
        O batla go ithuta kwa yunibesithing mo ngwageng o o tlang.
    """,
    "ts": """
        A ndzi swi tivi leswaku ndzi fanele ku endla yini namuntlha.
        Vana va tlanga swin'we exirhapeni siku na siku.
        Tolo hi xavile movha lowuntshwa edorobeni ra ka hina.
        Makwerhu wa xisati u tirha exibedlhele lexikulu edorobeni.
        Mpfula yi nile vusiku hinkwabyo kutani sweswi magondzo ma tsakamile.
        Va vula leswaku xitimela xi ta fika mundzuku nimixo.
        U fanele ku endla ntirho wa xikolo u nga si ya ku etleleni.
        Giyani i doroba lerikulu eka xifundzha xa Limpopo.
        Hikokwalaho ka yini u nga ndzi byelanga hi mhaka leyi?
        Mukhalabye a a tshamile ehansi ka murhi a ri karhi a hlaya phephahungu.
        Mati ma vila loko ma hisa ngopfu naswona ma tika loko ku titimela.
        U lava ku dyondza eyunivhesiti hi lembe leri taka.
    """,
    "xh": """
        Andiyazi into emandiyenze namhlanje kusasa emsebenzini.
        Abantwana badlala kunye egadini yonke imihla emva kwemini.
        Izolo sithenge imoto entsha edolophini kunye notata.
        Udade wethu usebenza kwisibhedlele esikhulu esixekweni.
        Kunethe ubusuku bonke kwaye ngoku iindlela zimanzi.
        Bathi uloliwe uza kufika ngomso kusasa kakhulu.
        Kufuneka wenze umsebenzi wakho wesikolo phambi kokuba ulale.
        IKapa sesinye sezona zixeko zihle eMzantsi Afrika.
        Kutheni ungazange undixelele ngalo mba ngaphambili?
        Ixhego belihleli phantsi komthi lifunda iphephandaba.
        Amanzi ayabila xa eshushu kakhulu aze abe ngumkhenkce xa kubanda.
        Ufuna ukufunda eyunivesithi kunyaka ozayo ukuze abe ngugqirha.
        Ndicela undincede ndifumane indlela eya esibhedlele.
        Urhulumente uthi uza kwakha izindlu ezininzi kulo nyaka.
        Sonke siyayithanda le ngoma kuba imnandi kakhulu.
        Ukuba uyagula, kufuneka uye kubona ugqirha ngokukhawuleza.
        Umama upheka isidlo sangokuhlwa ngelixa utata efunda iphephandaba.
        Abafundi abaninzi bahlala kude nesikolo sabo.
        Ndizalelwe eMonti kodwa ngoku ndihlala eKapa nosapho lwam.
        Imvula ayikani kule nyanga, ngoko ke amasimi omile.
    """,
    "yo": """
        Èmi kò mọ ohun tí ó yẹ kí n ṣe lónìí.
        Àwọn ọmọ máa ń ṣeré pọ̀ nínú ọgbà ní gbogbo ìrọ̀lẹ́.
        A ra ọkọ̀ ayọ́kẹ́lẹ́ tuntun ní ọjà ní àná.
        Arábìnrin mi ń ṣiṣẹ́ ní ilé ìwòsàn ńlá kan ní ìlú náà.
        Òjò rọ̀ ní gbogbo òru, àwọn ọ̀nà sì ti tutù báyìí.
        Wọ́n sọ pé ọkọ̀ ojú irin yóò dé ní kùtùkùtù ọ̀la.
        O gbọ́dọ̀ ṣe iṣẹ́ ilé rẹ kí o tó lọ sùn.
        Èkó jẹ́ ọ̀kan lára àwọn ìlú tí ó tóbi jùlọ ní Áfíríkà.
        Kí ló dé tí o kò sọ fún mi nípa ọ̀rọ̀ yìí tẹ́lẹ̀?
        Bàbá àgbà náà jókòó sábẹ́ igi, ó sì ń ka ìwé ìròyìn.
        Omi máa ń hó nígbà tí ó bá gbóná gan-an.
        Ó fẹ́ kẹ́kọ̀ọ́ ní yunifásítì ní ọdún tí ń bọ̀.
    """,
    "zu": """
        Angazi ukuthi kufanele ngenzeni namhlanje ekuseni emsebenzini.
        Izingane zidlala ndawonye engadini nsuku zonke ntambama.
        Izolo sithenge imoto entsha edolobheni kanye nobaba.
        Udadewethu usebenza esibhedlela esikhulu edolobheni laseThekwini.
        Linethe ubusuku bonke futhi manje imigwaqo imanzi.
        Bathi isitimela sizofika kusasa ekuseni kakhulu.
        Kumele wenze umsebenzi wakho wesikole ngaphambi kokuba ulale.
        ITheku lingelinye lamadolobha amahle kakhulu eNingizimu Afrika.
        Kungani ungangitshelanga ngale ndaba ngaphambilini lapha?
        Ikhehla belihlezi ngaphansi kwesihlahla lifunda iphephandaba.
        Amanzi ayabila uma eshisa kakhulu futhi abe yiqhwa uma kubanda.
        Ufuna ukufunda enyuvesi ngonyaka ozayo ukuze abe udokotela.
        Ngicela ungisize ngithole indlela eya esibhedlela.
        Uhulumeni uthi uzokwakha izindlu eziningi kulo nyaka.
        Sonke siyayithanda le ngoma ngoba imnandi kakhulu.
        Uma ugula, kumele uye kudokotela ngokushesha.
        Umama upheka isidlo sakusihlwa ngenkathi ubaba efunda iphephandaba.
        Abafundi abaningi bahlala kude nesikole sabo.
        Ngazalelwa eThekwini kodwa manje sengihlala eGoli nomndeni wami.
        Imvula ayikani kule nyanga, ngakho-ke amasimu omile.
    """,
}
"""Each sentence on a line of its own; those from the thirteenth on were written when the word lists were done."""
