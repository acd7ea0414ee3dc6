// The store on disk refuses what is not whole, bit by bit; packing is deterministic, tight, and leaves documents as
// they are.
#include "data/token_store.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <fstream>
#include <map>
#include <optional>

#include "kernels/base/hash.h"
#include "kernels/base/hdf5.h"
#include "tests/base/scratch_directory.h"

namespace drover {
namespace {

TokenStore drawn_store(int64_t documents, int64_t longest, TokenStore store = {}) {
  uint64_t state = 1;
  for (int64_t d = 0; d < documents; ++d) {
    state = state * 6364136223846793005u + 1442695040888963407u;
    const size_t length = 2 + static_cast<size_t>(state >> 33) % static_cast<size_t>(longest - 1);
    const std::vector<int32_t> ids(length, static_cast<int32_t>(d));  // a document is known by its ids
    store.add_document(ids, std::vector<uint8_t>(length, 1), 0.5f + static_cast<float>(d));
  }
  store.set_identity("drawn");
  return store;
}

void write_quickly(const fs::path& path, const std::string& text) {
  std::ofstream(path, std::ios::binary) << text;
}  // write_text waits for the disk

TEST(Store, TheFirstTokenOfADocumentIsNeverATarget) {
  const TokenStore store = drawn_store(9, 5);
  for (int64_t d = 0; d < 9; ++d) EXPECT_EQ(store.document(d).trained[0], 0);
  EXPECT_EQ(store.trained_tokens(0, 9), store.tokens() - 9);
}

TEST(Store, ComesBackAsItWas) {
  ScratchDirectory scratch;
  TokenStore store = drawn_store(50, 30);
  store.make_rows(true, 64);
  store.save(scratch / "a.h5");
  const TokenStore back = TokenStore::open(scratch / "a.h5");
  ASSERT_EQ(back.documents(), store.documents());
  ASSERT_EQ(back.rows(), store.rows());
  for (int64_t d = 0; d < store.documents(); ++d) {
    const Document a = store.document(d), b = back.document(d);
    EXPECT_TRUE(std::equal(a.ids.begin(), a.ids.end(), b.ids.begin(), b.ids.end()));
    EXPECT_TRUE(std::equal(a.trained.begin(), a.trained.end(), b.trained.begin(), b.trained.end()));
    EXPECT_EQ(a.weight, b.weight);
  }
  for (int64_t r = 0; r < store.rows(); ++r) EXPECT_EQ(back.row(r), store.row(r));
  EXPECT_EQ(back.longest_document(), store.longest_document());
  EXPECT_EQ(std::distance(fs::directory_iterator(scratch.path()), {}), 1);  // nothing else was left behind
  EXPECT_TRUE(hdf5::File::open(scratch / "a.h5").has("ids"));               // and other HDF5 readers take it
}

TEST(Store, MadeInADirectoryItIsTheSameFile) {
  ScratchDirectory scratch;
  for (const bool packing : {false, true}) {
    TokenStore in_memory = drawn_store(3000, 700);
    TokenStore in_a_file = drawn_store(3000, 700, TokenStore::made_in(scratch.path()));
    EXPECT_EQ(in_a_file.document(2999).ids.front(), 2999);
    for (TokenStore* store : {&in_memory, &in_a_file}) store->make_rows(packing, 1024);
    in_memory.save(scratch / "a.h5");
    in_a_file.save(scratch / "b.h5");
    EXPECT_EQ(sha256_file(scratch / "a.h5"), sha256_file(scratch / "b.h5"));
  }
  EXPECT_EQ(std::distance(fs::directory_iterator(scratch.path()), {}), 2);
  expect_error(Fault::io, {"nowhere"}, [&] { TokenStore::made_in(scratch / "nowhere"); });
}

TEST(Store, DocumentsStayThereWhileManyAreRead) {
  ScratchDirectory scratch;
  constexpr int64_t kDocuments = 30, kTokens = 120000;
  TokenStore store = TokenStore::made_in(scratch.path());
  for (int64_t d = 0; d < kDocuments; ++d) {
    store.add_document(std::vector<int32_t>(kTokens, static_cast<int32_t>(d)), std::vector<uint8_t>(kTokens, 1), 1);
  }
  store.make_rows(false, kTokens);
  store.save(scratch / "a.h5");
  const TokenStore back = TokenStore::open(scratch / "a.h5");
  const Document first = back.document(0);
  fs::remove(scratch / "a.h5");  // as a resumed run may do with one that is made again
  for (int64_t d = 0; d < kDocuments; ++d) {
    const Document document = back.document(d * 7 % kDocuments);
    EXPECT_EQ(std::ranges::count(document.ids, static_cast<int32_t>(document.ordinal)), kTokens);
    EXPECT_EQ(std::ranges::count(document.trained, 1), kTokens - 1);
  }
  EXPECT_EQ(std::ranges::count(first.ids, 0), kTokens);
  EXPECT_EQ(back.trained_tokens(0, kDocuments), kDocuments * (kTokens - 1));
}

int64_t resident_bytes() {
  std::ifstream in("/proc/self/statm");
  int64_t pages = 0, resident = 0;
  in >> pages >> resident;
  return resident * sysconf(_SC_PAGESIZE);
}

TEST(Store, ABoundedPartOfItStaysInTheProcess) {
  ScratchDirectory scratch;
  constexpr int64_t kDocuments = 60000, kTokens = 200;  // 60 MB
  {
    TokenStore store = TokenStore::made_in(scratch.path());
    const std::vector<int32_t> ids(kTokens, 1);
    const std::vector<uint8_t> trained(kTokens, 1);
    for (int64_t d = 0; d < kDocuments; ++d) store.add_document(ids, trained, 1);
    store.make_rows(false, kTokens);
    store.save(scratch / "a.h5");
  }
  const TokenStore back = TokenStore::open(scratch / "a.h5");
  const int64_t before = resident_bytes();
  int64_t most = 0, sum = 0;
  for (int64_t d = 0; d < kDocuments; ++d) {
    const Document document = back.document(d * 7919 % kDocuments);  // as a shuffled epoch reads them
    sum += document.ids[0] + document.trained[kTokens - 1];
    if (d % 64 == 0) most = std::max(most, resident_bytes() - before);
  }
  EXPECT_EQ(sum, 2 * kDocuments);
  EXPECT_LT(most, int64_t{32} << 20);
}

TEST(Store, SomeOfItsDocumentsAreAStoreOfTheirOwn) {
  ScratchDirectory scratch;
  TokenStore all = drawn_store(50, 30);
  all.make_rows(true, 64);
  all.save(scratch / "a.h5");
  std::optional<TokenStore> back = TokenStore::open(scratch / "a.h5");
  TokenStore some = back->with_documents(std::vector<int64_t>{40, 3, 4});
  back.reset();
  some.make_rows(false, 64);
  ASSERT_EQ(some.documents(), 3);
  EXPECT_EQ(some.rows(), 3);
  int64_t tokens = 0;
  for (const int64_t d : {40, 3, 4}) {
    const Document document = some.document(d == 40 ? 0 : d - 2), same = all.document(d);
    EXPECT_TRUE(std::ranges::equal(document.ids, same.ids));
    EXPECT_EQ(document.weight, same.weight);
    tokens += static_cast<int64_t>(same.ids.size());
  }
  EXPECT_EQ(some.tokens(), tokens);
  some.save(scratch / "b.h5");
  EXPECT_EQ(TokenStore::open(scratch / "b.h5").tokens(), tokens);
}

TEST(Store, OriginsRepeatsAndNotesComeBackToo) {
  ScratchDirectory scratch;
  TokenStore store;
  const std::vector<int32_t> ids(4, 7);
  const std::vector<uint8_t> trained(4, 1);
  for (int i = 0; i < 6; ++i) store.add_document(ids, trained, 1, Origin{i / 2, i < 4 ? 0 : 1});
  store.set_repeats({1, 0.25});
  store.set_notes("messages, text", "one\ntwo");
  store.set_identity("i");
  store.make_rows(true, 16);
  store.save(scratch / "a.h5");
  const TokenStore back = TokenStore::open(scratch / "a.h5");
  EXPECT_EQ(back.repeats(), (std::vector<double>{1, 0.25}));
  EXPECT_EQ(back.formats(), "messages, text");
  EXPECT_EQ(back.notes(), "one\ntwo");
  for (int64_t d = 0; d < 6; ++d) EXPECT_EQ(back.document(d).origin, (Origin{d / 2, d < 4 ? 0 : 1}));
  EXPECT_EQ(back.rows(), 2) << "of one source each";
}

TEST(Store, CutAnywhereItIsRefused) {
  ScratchDirectory scratch;
  TokenStore store = drawn_store(20, 10);
  store.make_rows(true, 16);
  store.save(scratch / "a.h5");
  const std::string whole = read_text(scratch / "a.h5");
  for (size_t size = 0; size < whole.size(); size += size < 64 || size + 96 > whole.size() ? 1 : 97) {
    write_quickly(scratch / "b.h5", whole.substr(0, size));
    expect_error(Fault::bad_data, {"b.h5", "not whole", "delete it"}, [&] { TokenStore::open(scratch / "b.h5"); });
    EXPECT_FALSE(TokenStore::matches(scratch / "b.h5", "drawn"));
  }
  write_quickly(scratch / "b.h5", whole + "x");
  expect_error(Fault::bad_data, {"b.h5"}, [&] { TokenStore::open(scratch / "b.h5"); });
}

TEST(Store, AnyFlippedBitIsSeen) {
  ScratchDirectory scratch;
  TokenStore store = drawn_store(20, 10);
  store.make_rows(true, 16);
  store.save(scratch / "a.h5");
  const std::string whole = read_text(scratch / "a.h5");
  for (size_t at = 0; at < whole.size(); at += 61) {
    std::string flipped = whole;
    flipped[at] = static_cast<char>(flipped[at] ^ (1 << at % 8));
    write_quickly(scratch / "b.h5", flipped);
    EXPECT_FALSE(TokenStore::matches(scratch / "b.h5", "drawn")) << at;
  }
}

TEST(Store, OneOfAnotherVersionIsMadeAgain) {
  ScratchDirectory scratch;
  hdf5::File file = hdf5::File::create(scratch / "a.h5");
  file.set_attribute("/", "version", int64_t{3});
  file.close();
  const std::string mark = "\nsha256 " + sha256_file(scratch / "a.h5");
  std::ofstream(scratch / "a.h5", std::ios::binary | std::ios::app) << mark;
  expect_error(Fault::bad_data, {"a.h5", "another version", "drover prepare"},
               [&] { TokenStore::open(scratch / "a.h5"); });
  EXPECT_FALSE(TokenStore::matches(scratch / "a.h5", "drawn"));
}

TEST(Store, AMissingOneIsNamed) {
  ScratchDirectory scratch;
  expect_error(Fault::missing_input, {"none.h5"}, [&] { TokenStore::open(scratch / "none.h5"); });
  EXPECT_FALSE(TokenStore::matches(scratch / "none.h5", "drawn"));
}

TEST(Store, AFailedSaveLeavesTheOldOne) {
  ScratchDirectory scratch;
  TokenStore store = drawn_store(20, 10);
  store.make_rows(false, 16);
  store.save(scratch / "a.h5");
  fs::create_directory(scratch / "a.h5.tmp");  // where the new one would be written
  EXPECT_THROW(drawn_store(5, 5).save(scratch / "a.h5"), Error);
  EXPECT_EQ(TokenStore::open(scratch / "a.h5").documents(), 20);
}

TEST(Packing, LosesAndChangesNothing) {
  const TokenStore plain = drawn_store(500, 40);
  TokenStore packed = plain;
  packed.make_rows(true, 64);
  ASSERT_EQ(packed.documents(), plain.documents());
  EXPECT_EQ(packed.identity(), "drawn");
  std::map<int32_t, Document> by_id;
  for (int64_t d = 0; d < packed.documents(); ++d) by_id[packed.document(d).ids[0]] = packed.document(d);
  ASSERT_EQ(by_id.size(), 500u);
  for (int64_t d = 0; d < plain.documents(); ++d) {
    const Document& there = by_id.at(static_cast<int32_t>(d));
    EXPECT_EQ(there.ids.size(), plain.document(d).ids.size());
    EXPECT_EQ(there.weight, plain.document(d).weight);
  }
}

TEST(Packing, IsTightAndTheSameEveryTime) {
  const TokenStore plain = drawn_store(500, 40);
  TokenStore a = plain, b = plain;
  a.make_rows(true, 64);
  b.make_rows(true, 64);
  ASSERT_EQ(a.rows(), b.rows());
  int64_t most = 0;
  for (int64_t r = 0; r < a.rows(); ++r) {
    EXPECT_EQ(a.row(r), b.row(r));
    EXPECT_LT(a.row(r).first, a.row(r).second);
    most = std::max(most, a.row_tokens(r));
  }
  EXPECT_LE(most, 64);
  EXPECT_GT(static_cast<double>(a.tokens()), 0.95 * 64 * static_cast<double>(a.rows()));
}

TEST(Packing, DocumentsStayNearTheirPlaceInTheFile) {
  TokenStore store = drawn_store(2000, 40);
  store.make_rows(true, 64);
  // A row waits for what fits among 64 open ones, so its documents come from one stretch of the file.
  for (int64_t r = 0; r < store.rows(); ++r) {
    const auto [first, last] = store.row(r);
    EXPECT_LT(store.document(last - 1).ids[0] - store.document(first).ids[0], 1000);
    for (int64_t d = first + 1; d < last; ++d) EXPECT_GT(store.document(d).ids[0], store.document(d - 1).ids[0]);
  }
}

TEST(Packing, FullRowsStandAlone) {
  TokenStore store;
  for (int i = 0; i < 3; ++i) store.add_document(std::vector<int32_t>(8, i), std::vector<uint8_t>(8, 1), 1);
  store.make_rows(true, 8);
  EXPECT_EQ(store.rows(), 3);
  store.make_rows(true, 16);
  EXPECT_EQ(store.rows(), 2);
  store.make_rows(false, 16);
  EXPECT_EQ(store.rows(), 3);
}

}  // namespace
}  // namespace drover
