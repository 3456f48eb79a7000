"""The commonest words of Azerbaijani, Irish, Kazakh, Māori, Mongolian and Albanian, which wordfreq has no list of."""

# fmt: off
OTHER_FUNCTION_WORDS = {
    "az": "və bu bir o ki də da ilə üçün çox daha amma ancaq kimi olan olub idi var yox ya nə hər mən sən biz siz "
    "onlar onun onu ona mənim sənin bizim sizin mənə sənə bizə bunu buna bunun belə elə indi sonra əvvəl qədər "
    "görə bütün heç necə niyə kim harada nədir əgər lakin həm isə artıq yalnız üzrə edir etmək olur olaraq "
    "deyil edən etdi öz özü hansı bəzi başqa digər ən barədə haqqında çünki",
    "ga": "an agus na ar a is i sé sí tá ag go le do ní bhí nach nuair ach atá sin seo mar siad mé tú muid sibh féin "
    "air aige aici acu agam agat leis léi leo liom leat dom duit dó di dúinn daoibh dóibh de den don faoi ó ón "
    "as chun gan idir roimh tar éis níos mó gach aon eile freisin bhfuil raibh bheith beidh níl níor ba cé cad "
    "conas cathain cén má dá ina inár san sa sna nó ann anseo ansin anois",
    "kk": "және бұл бір мен ол да де үшін деп болып бар жоқ емес болды болған болады еді екен сен біз сіз олар оның "
    "оны оған менің сенің біздің сіздің маған саған бізге сізге олардың осы сол мына қандай қалай неге кім не "
    "қашан қайда әр барлық бәрі өте көп аз тек ғана кейін дейін бұрын соң қазір енді туралы арқылы сияқты "
    "бойынша бірақ немесе егер сондықтан өйткені ал тағы басқа өз өзі өзінің керек еткен етті етіп деген",
    "mi": "te i he ki o ngā e ka kei ko a me nga tēnei ā ia hoki mō kua nō au koe mātou tātou rātou rāua māua tāua "
    "kōrua koutou mai atu ai ana nei nā rā iho ake tēnā tērā ēnei ēnā ērā tētahi ētahi katoa kāore ehara engari "
    "mehemea nōku mōku taku tāku tō tōku tāna tōna tōu ō ōna ōku aha wai hea pēhea mēnā anō noa kore hei mā rō "
    "kīhai kaua rawa pea nui iti kia tonu anake waenganui runga raro roto waho",
    "mn": "нь энэ тэр ба бол юм байна байсан байгаа гэж гэсэн гэх уу үү вэ бэ би чи та бид тэд түүний миний таны "
    "бидний манай танай надад чамд танд бидэнд түүнийг тэднийг хийх болон болох болсон болно их маш бүх зөвхөн "
    "мөн бас харин хэрэв гэвч гэтэл учир тул тухай дээр доор дотор гадна дараа өмнө хүртэл одоо өнөөдөр хэн юу "
    "хаана хэзээ яаж яагаад ямар хэдэн аль өөр өөрийн өөрөө нэг хоёр гурав ч л биш үгүй байх юмаа шиг",
    "sq": "e të në dhe i një për me është që nuk më si por ka nga do u se ky kjo këto këta ai ajo ata ato unë ti ne "
    "ju tij saj tyre im ime yt jote jonë tonë juaj mua ty atij asaj na kam ke kemi keni kanë kishte ishte ishin "
    "jam je jemi jeni janë jo po s'ka çdo shumë pak vetëm edhe kur ku pse kush çfarë cili cila deri pas para "
    "mbi nën mes pa tani këtu atje duhet mund kështu sepse nëse ose as",
}

OTHER_COMMON_WORDS = {
    "az": "il ildə ili gün günü vaxt zaman insan insanlar adam həyat dünya ölkə şəhər ev iş su əl göz ad söz dil "
    "kitab məktəb uşaq uşaqlar ana ata oğul qız qardaş bacı dost pul azərbaycan azərbaycanın bakı dövlət xalq "
    "deyir dedi deyirlər demək gəldi gəlir getdi gedir gedirəm verdi verir aldı alır gördü görür bilir bilmir "
    "bilirəm istəyir istəyirəm lazım lazımdır mümkün böyük kiçik yaxşı pis yeni köhnə gözəl uzun birinci ikinci "
    "iki üç dörd beş altı yeddi səkkiz doqquz on yüz az həmişə yenə dünən sabah axşam səhər gecə tez gec yerdə "
    "yer yerə kənd arasında üzərində altında yanında qarşı olduğu olması edilir edilən oldu olacaq məsələn "
    "bəlkə bəli xeyr təşəkkür hissə zamanı tərəfindən nəfər bəy hələ hamı hamısı biri şey şeylər",
    "ga": "bliain bhliain lá laethanta am uair duine daoine saol domhan tír teach tigh baile obair uisce lámh súil "
    "ainm focal teanga gaeilge ghaeilge éire éireann leabhar scoil páiste páistí bean fear máthair athair mac "
    "iníon deartháir cara airgead deir dúirt rá déanann rinne déanamh tháinig teacht tagann chuaigh dul téann "
    "thug tabhairt fuair fháil chonaic feiceáil feicim tuigim cloisim ceapaim mór móra mhór beag maith mhaith "
    "olc nua sean fada óg álainn céad chéad dara dhá trí ceithre cúig seacht ocht naoi deich beirt beagán mórán "
    "arís inniu inné amárach tráthnóna maidin oíche luath riamh gcónaí áit chathair rud rudaí scéal slí bealach "
    "thart suas síos amach isteach abhaile timpeall trasna measc os comhair ndiaidh fós cheana díreach cinnte "
    "gur gurb nár nách mura sula dtí fad toisc mise tusa sise eisean sinn againn fúm uaim uaidh uathu orm ort "
    "uirthi orthu orainn chuig chuige tríd",
    "kk": "жыл жылы жылдың күн күні уақыт адам адамдар адамның өмір әлем ел елдің қала қаласы үй жұмыс су қол көз ат "
    "аты сөз тіл тілі кітап мектеп бала балалар ана әке ұл қыз аға іні дос ақша қазақ қазақстан қазақстанның "
    "мемлекет халық айтты айтады келді келеді барды барады берді береді алды алады көрді көреді біледі білмейді "
    "білемін қалайды мүмкін қажет тиіс үлкен кіші кішкентай жақсы жаман жаңа ескі әдемі ұзақ бірінші екінші екі "
    "үш төрт бес алты жеті сегіз тоғыз он жүз мың әрқашан ешқашан қайта бүгін кеше ертең таңертең кешке түнде "
    "тез жер жерде ауыл арасында үстінде астында қасында қарсы болуы болса етеді етіледі қазіргі мысалы иә "
    "рахмет бөлігі кезінде тарапынан әлі сонымен бірге қатар кейбір ешкім ештеңе біреу нәрсе дейді отыр жатыр "
    "жүр тұр болмаса алып келіп барып",
    "mi": "tau wā ra pō ao whenua tangata tāngata wahine wāhine tāne tamaiti tamariki matua mātua whaea pāpā hoa "
    "whānau iwi hapū marae whare kāinga tāone mahi ringa kanohi ingoa kupu reo māori aotearoa pukapuka kura "
    "kaiako moni kai moe haere kōrero mea kī whai mōhio kite rongo titiro tuhi pānui ako hiahia pīrangi tīmata "
    "tae noho tū homai hoatu hoko mutu āwhina pai kino hou tawhito roa poto ātaahua mua muri tahi rua toru whā "
    "rima ono whitu waru iwa tekau rau tuatahi tuarua maha āe kāo āpōpō inanahi ahiahi ata wiki marama tino "
    "tere āta wāhi take rongoā rangi moana awa maunga rākau manu ika atua ariki rangatira kāwanatanga ture "
    "pakanga aroha mate ora kōtiro tama whakaaro whakamahi whakarongo taea ahakoa reira otirā hāunga whakatū",
    "mn": "жил жилийн өдөр өдрийн цаг хүн хүний хүмүүс хүмүүсийн амьдрал дэлхий дэлхийн улс улсын орон хот хотын гэр "
    "байшин ажил ажлын ус гар нүд нэр үг хэл хэлний ном сургууль хүүхэд хүүхдийн эх ээж аав хүү охин ах эгч дүү "
    "найз мөнгө монгол монголын төр засгийн ард түмэн хэлсэн хэлэв хэлдэг ирсэн ирдэг ирж явсан явж явдаг өгсөн "
    "өгөх авсан авах авч үзсэн харсан харж мэднэ мэдэхгүй мэдэх хүсэж чадна чадахгүй болохгүй ёстой хэрэгтэй "
    "боломжтой том бага жижиг сайн муу шинэ хуучин сайхан урт эхний анхны хоёрдугаар дөрөв тав зургаа долоо "
    "найм ес арав зуун мянга олон цөөн үргэлж дахин өчигдөр маргааш өглөө орой шөнө газар газрын хамгийн хамт "
    "тийм ийм ингэж тэгээд тиймээс иймээс жишээ зэрэг түүнд түүнтэй тэдний хэсэг үед нутаг үйл хэрэг бараг "
    "магадгүй баярлалаа хийж хийсэн хийдэг болж байдаг байв байлаа байжээ байгаагүй хүмүүст хэнд энд тэнд",
    "sq": "vit viti vite vitin ditë dita kohë koha njeri njerëz njerëzit jetë jeta botë bota vend vendi qytet qyteti "
    "shtëpi shtëpia punë puna ujë dorë sy emër emri fjalë fjalët gjuhë gjuha libër shkollë shkolla fëmijë "
    "fëmijët grua burrë nënë baba bir vajzë vëlla motër mik miq shqip shqipëri shqipëria shqiptar shqiptare "
    "kosovë tha thotë thonë bëri bën bëjë bërë erdhi vjen shkoi shkon shkoj dha jep mori merr sheh di dinte dua "
    "donte mundet mundi madh madhe vogël mirë keq ri re vjetër bukur gjatë parë dytë dy tre katër pesë gjashtë "
    "shtatë tetë nëntë dhjetë gjithë gjithmonë kurrë përsëri sot dje nesër mbrëmje mëngjes natë shpejt larg "
    "afër rreth ndaj kundër midis ndërmjet brenda jashtë përpara sipër poshtë tek te prej sipas megjithatë pra "
    "prandaj ndërsa kurse ndonëse atëherë tashmë ende akoma ndoshta pastaj tjetër tjera tjerë disa secili "
    "askush asgjë dikush diçka vetë njëjtë nëpër përmes qenë ndodhi quhet bashkë ndër isha ishim faleminderit",
}
# fmt: on
