#include "isolate/contamination.h"

#include <string>
#include <vector>

#include <gtest/gtest.h>

namespace lapidary {
namespace {

using Strings = std::vector<std::string>;

Strings found_terms(const std::string& text, const Strings& terms) {
  Strings out;
  for (const TermPlace& place : find_terms(text, terms))
    out.push_back(text.substr(place.begin, place.end - place.begin) + "=" + terms[place.term]);
  return out;
}

TEST(Terms, AreWholeWordsInAnyCase) {
  const Strings terms = {"cache", "ARR", "café"};
  EXPECT_EQ(found_terms("Cache, caching and a pre-CACHE; arr. CAFÉ cached", terms),
            (Strings{"Cache=cache", "CACHE=cache", "arr=ARR", "CAFÉ=café"}));
}

TEST(Terms, MayStandInThePlural) {
  const Strings terms = {"query", "index", "market segment", "news"};
  EXPECT_EQ(found_terms("queries, query's, indexes, indexs, market segments, markets segment, new",
                        terms),
            (Strings{"queries=query", "query=query", "indexes=index", "indexs=index",
                     "market segments=market segment"}));
}

TEST(Terms, TakeHyphensForSpacesButNoOtherMark) {
  const Strings terms = {"connection pool", "slow-query log"};
  EXPECT_EQ(found_terms("connection-pool, connection  pools, connection. Pool, Slow query-log "
                        "connection\npool",
                        terms),
            (Strings{"connection-pool=connection pool", "connection  pools=connection pool",
                     "Slow query-log=slow-query log", "connection\npool=connection pool"}));
}

TEST(Terms, OfMarksAreFoundAsTheyStand) {
  const Strings terms = {"C++", "A/B test", "node.js", ""};
  EXPECT_EQ(found_terms("c++ and A/B tests on Node.js, not A test", terms),
            (Strings{"c++=C++", "A/B tests=A/B test", "Node.js=node.js"}));
}

TEST(Terms, LongestFirst) {
  const Strings terms = {"cache", "hit rate", "cache hit rate", "a b", "b c d"};
  EXPECT_EQ(found_terms("cache hit rate, cache, hit rate", terms),
            (Strings{"cache hit rate=cache hit rate", "cache=cache", "hit rate=hit rate"}));
  EXPECT_EQ(found_terms("a b c d", terms), (Strings{"b c d=b c d"}));
}

TEST(Contamination, CountsForeignTermsPerHundredWords) {
  const std::string text = "Our pricing needs a cache. Database replication and revenue: caches.";
  const Contamination result =
      contamination(text, Strings{"pricing", "revenue", "database replication"},
                    Strings{"cache", "replication", "Pricing"});
  ASSERT_EQ(result.places.size(), 2u);  // replication is within the text's own longer term
  EXPECT_EQ(result.places[0].term, 0u);
  EXPECT_EQ(text.substr(result.places[1].begin), "caches.");
  EXPECT_EQ(result.words, 10);
  EXPECT_DOUBLE_EQ(result.per_100_words, 20);
  EXPECT_EQ(contamination("", {}, Strings{"cache"}).per_100_words, 0);
}

Strings keys(const std::string& text, FactKind kind) {
  Strings out;
  for (const Fact& fact : extract_facts(text))
    if (fact.kind == kind) out.push_back(fact.key);
  return out;
}

Strings numbers(const std::string& text) {
  return keys(text, FactKind::kNumber);
}
Strings names(const std::string& text) {
  return keys(text, FactKind::kName);
}

TEST(Facts, NumbersHaveOneSpelling) {
  EXPECT_EQ(numbers("1,200 and 1200; 10,000.50 is 10000.5; 1234,567"),
            (Strings{"1200", "1200", "10000.5", "10000.5", "1234", "567"}));
  EXPECT_EQ(numbers("$5M, $5 million, 5 million dollars, $5m and 5M USD"),
            (Strings{"$5M", "$5M", "$5M", "$5M", "$5M"}));
  EXPECT_EQ(numbers("€3bn £20 10K 10k 20 thousand"), (Strings{"€3B", "£20", "10K", "10K", "20K"}));
  EXPECT_EQ(numbers("25% 25 % 25 percent, 10-20%"), (Strings{"25%", "25%", "25%", "10", "20%"}));
  EXPECT_EQ(numbers("150ms, 150 ms, 32GB 32 gb, 5X, 18-month, 18 months, 5 PM, 24hrs, 24 h"),
            (Strings{"150ms", "150ms", "32gb", "32gb", "5x", "18 month", "18 month", "5pm",
                     "24 hour", "24 hour"}));
  EXPECT_EQ(numbers("14:30, 120/80, v14.2.1, 2.0.1."), (Strings{"14:30", "120/80", "2.0.1"}));
  EXPECT_EQ(numbers("5 m, $5 b, 12 people"), (Strings{"5m", "$5", "12"}));
}

TEST(Facts, DigitsThatSayNothingAreNone) {
  EXPECT_EQ(numbers("p95 of 3 steps, Q3\n12. first\n 13) second\n14.5 third"), (Strings{"14.5"}));
}

TEST(Facts, NamesAreCapitalsThatNoSentenceAsksFor) {
  EXPECT_EQ(names("We use Redis. Redis is fast. Because of SQL!"),
            (Strings{"Redis", "Redis", "SQL"}));
  EXPECT_EQ(names("Migrate the data.\nThen rest: Nothing more."), (Strings{}));
  EXPECT_EQ(names("- Deploy it\n- \"Maybe\" not"), (Strings{}));
  EXPECT_EQ(names("from Acme Robotics and the Bank of England, by Élodie"),
            (Strings{"Acme Robotics", "Bank of England", "Élodie"}));
  EXPECT_EQ(names("with Dr. Alvarez, J. R. Smith, O'Brien and R&D at Smith & Sons, says I, The"),
            (Strings{"Alvarez", "J. R. Smith", "O'Brien", "R&D", "Smith & Sons"}));
  EXPECT_EQ(names("take vitamin C and Z daily"), (Strings{}));
  EXPECT_EQ(names("after Series B. Team size"), (Strings{"Series B"}));
  EXPECT_EQ(names("at 5 PM on Monday"), (Strings{"Monday"}));
}

TEST(Facts, ForeignAreThoseSeenNowhere) {
  const FactSet foreign =
      foreign_facts(Strings{"We pay $5M to Acme Corp by March, at 1,200 rps on Redis."},
                    Strings{"About 1200 RPS, said ACME corp.", "the redis line"});
  EXPECT_EQ(foreign.numbers, (std::set<std::string>{"$5M"}));
  EXPECT_EQ(foreign.names, (std::set<std::string>{"March"}));
}

TEST(Facts, AreFoundWithTheirPlaces) {
  const FactSet facts = facts_of(Strings{"We run Redis Cluster and Redis at 99.9% for $5M."});
  const std::string text = "Redis pays 5 million dollars. Use redis, Redis Cluster; 99.9 %";
  Strings found;
  for (const Fact& fact : find_facts(text, facts))
    found.push_back(text.substr(fact.begin, fact.end - fact.begin) + "=" + fact.key);
  EXPECT_EQ(found, (Strings{"Redis=Redis", "5 million dollars=$5M", "Redis Cluster=Redis Cluster",
                            "99.9 %=99.9%"}));
}

TEST(Coverage, SaysWhatIsThereAndWhatIsNot) {
  const Coverage terms =
      term_coverage("The cache hit rates grow.", Strings{"cache", "cache hit rate", "sharding"});
  EXPECT_EQ(terms.found, (Strings{"cache", "cache hit rate"}));
  EXPECT_EQ(terms.missing, (Strings{"sharding"}));
  EXPECT_DOUBLE_EQ(*terms.share(), 2.0 / 3);
  const Coverage facts =
      fact_coverage("$5 million for Redis", facts_of(Strings{"a $5M deal, 20% off, for Redis"}));
  EXPECT_EQ(facts.found, (Strings{"$5M", "Redis"}));
  EXPECT_EQ(facts.missing, (Strings{"20%"}));
  EXPECT_FALSE(term_coverage("text", {}).share());
}

}  // namespace
}  // namespace lapidary
