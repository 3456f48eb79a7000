"""The commonest words of languages that wordfreq has no list of, written down here."""

from babelscope.evaluation.common_words_of_africa import AFRICAN_COMMON_WORDS, AFRICAN_FUNCTION_WORDS
from babelscope.evaluation.common_words_of_neighbours import NEIGHBOURS_COMMON_WORDS, NEIGHBOURS_FUNCTION_WORDS
from babelscope.evaluation.common_words_of_others import OTHER_COMMON_WORDS, OTHER_FUNCTION_WORDS

# fmt: off
FUNCTION_WORDS = NEIGHBOURS_FUNCTION_WORDS | AFRICAN_FUNCTION_WORDS | OTHER_FUNCTION_WORDS | {
    "et": "ja on ei ta et oli see ma kui aga sa ka oma mis siis nii ning kes veel seda või tema minu sinu teda mind "
    "meie nad selle olen pole mida juba ole nende välja kuid üle vaid enne ära siin seal nüüd väga kõik mitte "
    "ainult kuidas miks pärast peale läbi kas olla olid oleks saab võib peab tuleb mulle talle sest ega kuni "
    "all tagasi alla üks kaks",
    "eo": "la de kaj en estas mi ne li al ke vi ĝi por kun ni ili el pri sed se tio ĉu estis tiu unu pli kiu ĉi oni "
    "kiel ol ŝi sur jam da kiam nur estos mia lia via ĉar aŭ ja tre plej post tiel nun ĉe min lin vin ŝin ĝin "
    "nin kio tie iu nenio ĉiu ĉiuj havas povas ankaŭ tamen sen dum tra inter ankoraŭ per antaŭ kien kie kial "
    "do kiuj tiuj sia sian",
    "sw": "na ya wa kwa ni za katika la kuwa cha huo hii huu hiyo yake wake ambayo ambao kama hilo pia lakini bila "
    "hadi baada kabla kila watu mtu nchi alisema wengi sana moja mimi wewe yeye sisi nyinyi wao hawa yangu "
    "yako wangu tu tena au ili hata vya vile kutoka kuhusu mwaka siku wakati yao zaidi kupitia ingawa bado "
    "ambapo hapa huko wale yule hayo",
    "eu": "eta da ez du bat dute ere zen baina hau hori dira zuen izan egin den baino zuten beste gure oso bere "
    "behar dago edo nik zer zuk nire ziren dut dugu duen direla dela bai asko guztiak horrek hemen hala gaur "
    "ondoren ari nahi batean batzuk bi hiru zaio diren zuela daude zait arte gabe egiten esan orain orduan "
    "beti inoiz nola non nor",
    "cy": "y yn a i ar o yr i'r ei mae ac wedi am fod bod oedd ond un hyn gan nid hefyd na eu fel pan fy dy ein ni "
    "fi chi hi ef nhw fe mi ddim dim os mwy rhwng gyda gyda'r o'r a'r y'r ym sydd roedd bydd yw ydy dyma dyna "
    "yma yno nawr ble beth pwy sut pam iawn rhaid cael gael gwneud dod mynd wrth dros heb trwy oes mewn at "
    "hwn hon hynny sy'n mae'n i'w ôl tŷ sŵn hŷn ât tân môr côr gêm tîm sâl pêl cês",
}
"""Words of which each is about one in 150 or more, most of them function words."""

COMMON_WORDS = NEIGHBOURS_COMMON_WORDS | AFRICAN_COMMON_WORDS | OTHER_COMMON_WORDS | {
    "et": "aasta aastat aastal aastaid päev päeva päeval aeg aega ajal inimene inimest inimesed inimeste inimesi elu "
    "elus maa maal linn linna linnas kool kooli koolis töö tööd tööl raha eesti eestis vesi vett käsi käe silm "
    "silmad nimi nimega sõna ütles ütleb teeb tegi tegema teha tuli tulema tulla läheb läks minna minema andis "
    "anda saama saada võtta võttis näha näeb nägi tean teab teada tahan tahab tahtis peaks pidi pean tohi olnud "
    "olema olnuks oled oleme olete suur suure suured väike väikese hea head uus uue uued vana noor ilus pikk "
    "esimene esimese teine teise teised kolm neli viis kuus seitse palju vähe rohkem alati kunagi jälle täna eile "
    "homme praegu varsti kohe siiski samuti näiteks selline sellest selles selleks sellega sellel seega seetõttu "
    "ehk pigem kellel keegi midagi miski kõike kõigi iga igal meil teil neil mul sul tal ise enda ees taga juurde "
    "juures kaudu poolt vastu kaasa ümber vahel asi asja mees naine laps lapsed ema isa koht kohta uuesti mitu "
    "natuke just veidi küll nagu",
    "eo": "tago tagoj tagon jaro jaroj jaron homo homoj homon vivo vivon mondo mondon loko lando urbo domo domon "
    "laboro tempo tempon akvo mano okuloj nomo vorto vortoj lingvo lingvoj esperanto libro libroj viro virino infano "
    "infanoj patro patrino amiko amikoj diris diras fari faris faras iri iris iras veni venis venas doni donis "
    "donas vidi vidis vidas scii scias sciis voli volas volis povi povis povus devas devis devus ŝatas amas havi "
    "havis esti estu estintus iĝis fariĝis granda grandaj grandan malgranda bona bonaj bonan nova novaj novan "
    "maljuna juna bela longa unua duan dua du tri kvar kvin ses sep multe multaj malmulte ĉiam neniam denove "
    "hodiaŭ hieraŭ morgaŭ baldaŭ tuj preskaŭ eĉ almenaŭ ekzemple tial tia tiaj kia kiaj kiom ĉio ĉion ĉie iuj iom "
    "ia ties niaj miaj liaj ŝia ŝiaj iliaj ĝia onin vian malantaŭ sub super apud kontraŭ ĝis laŭ krom anstataŭ "
    "ĉirkaŭ ekster nek kvankam kvazaŭ nome ofte alia aliaj alian sama samaj tuta tutan ĉefa jen",
    "sw": "serikali rais wananchi watoto mtoto mwanamke wanawake mwanaume wanaume jamii habari kazi maisha dunia "
    "ulimwengu miaka mwezi wiki saa mji jiji nyumba shule maji chakula fedha pesa jina neno maneno lugha "
    "kiswahili picha mtandao mitandao blogu mwandishi waandishi polisi chama uchaguzi haki uhuru vita amani "
    "alikuwa walikuwa ilikuwa kulikuwa anasema wanasema aliandika anaandika kufanya anafanya walifanya kusema "
    "kuona kupata kupewa kwenda kuja kutoa kuweza anaweza wanaweza inaweza kuandika kusaidia kuhusiana kuwepo "
    "kuna hakuna ana wana ina sina hana hawana si ndiyo hapana ndio sio siyo mkubwa kubwa ndogo mdogo nzuri mzuri "
    "mpya jipya nyingi mengi wengine nyingine mwingine mengine kwanza pili tatu nne tano sita saba nane tisa kumi "
    "sasa leo jana kesho pamoja mbalimbali hivyo hivi namna jinsi kwamba ikiwa iwapo wala bali ndani nje juu "
    "chini mbele nyuma dhidi miongoni mwa pa yetu wetu zetu wenu yenu lao zao zake hiki hicho hizo hizi ule ile "
    "zile wapi nani nini lini",
    "eu": "urte urteko urtetan urteak egun eguna egunean denbora pertsona jende jendea jendeak bizi bizitza bizitzan "
    "mundu mundua munduko herri herria herriko etxe etxea etxean etxera lan lana lanak lanean ur ura esku begi "
    "begiak izen izena hitz hitza hitzak euskara euskal gizon gizona emakume emakumea ume umeak haur haurrak aita "
    "ama lagun laguna lagunak zioten egingo etorri etortzen joan joaten eman ematen ikusi ikusten jakin badakit "
    "nuen beharko ahal izango izaten zara zarete gara naiz nintzen zinen ginen ditu dituzte ditugu zituen "
    "zituzten dituen diote dio digu nion nituen handi handia handiak txiki txikia on ona onak berri berria "
    "berriak zahar gazte eder luze lehen lehenengo bigarren lau bost sei zazpi zortzi gutxi gehiago gehien "
    "berriro atzo bihar laster oraindik oraingo bakarrik baita halaber adibidez horregatik horrela hain hainbat "
    "batek bata bestea besteak hauek horiek hura haiek zure haien norbait zerbait ezer edozein zein zeren baldin "
    "bada badira bitartean arabera kontra gainean azpian aurrean atzean ondoan artean buruz bidez gainera",
    "cy": "blwyddyn flwyddyn blynyddoedd diwrnod dydd amser pobl bobl bywyd byd gwlad wlad tref dref dŷ cartref gwaith "
    "waith arian dŵr llaw llygaid enw gair geiriau iaith cymraeg gymraeg cymru gymru cymro llyfr dyn menyw merch "
    "plentyn plant blant tad mam ffrind ffrindiau dweud ddweud meddai wneud gwnaeth wnaeth aeth daeth ddaeth rhoi "
    "roi rhoddodd gweld weld gwelodd gwybod wybod eisiau hoffi hoffwn gallu gallaf gallwch medru dylai dylid "
    "bydda byddai byddaf bydden buodd bu bûm roeddwn roedden rydw rwy dw dwi wyt rydych rydyn maen oeddwn mawr "
    "fawr bach fach da dda newydd hen ifanc hir cyntaf gyntaf ail dau ddau dwy ddwy tri dri tair pedwar pump "
    "chwech saith wyth naw deg llawer ychydig fwy mwyaf fwyaf bob pob byth eto heddiw ddoe yfory bellach hwyr "
    "cynnar gynnar felly oherwydd achos er enghraifft cyn ers rhai rhywbeth unrhyw neb popeth pawb eraill arall "
    "llall nghyd gilydd eich hwy iddo iddi iddyn arno arni arnyn ganddo ganddi gennym ohono tua tuag dan drwy "
    "ymlaen allan o'i a'i na'r hynod digon angen",
}
# fmt: on
"""Words that are rarer than those, and commoner than one in some 3,000."""
