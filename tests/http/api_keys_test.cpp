// Which keys are read, which are allowed, and that none is ever shown.
#include "launch/http/api_keys.h"

#include <gmock/gmock.h>

#include "kernels/base/error.h"
#include "kernels/base/file.h"
#include "tests/base/scratch_directory.h"

namespace drover {
namespace {

using testing::HasSubstr;
using testing::Not;

class Keys : public testing::Test {
 protected:
  ApiKeys read(const std::string& text, fs::perms mode = fs::perms::owner_read) {
    const fs::path file = directory / "keys";
    fs::remove(file);
    write_text(file, text);
    fs::permissions(file, mode);
    return ApiKeys::read(file);
  }
  std::string refused(const std::string& text) {
    try {
      read(text);
    } catch (const Error& error) {
      EXPECT_EQ(error.fault(), Fault::bad_data);
      return error.what();
    }
    ADD_FAILURE() << "read: " << text;
    return "";
  }
  ScratchDirectory directory;
};

TEST_F(Keys, AllAreAllowedAndNothingElse) {
  const ApiKeys keys = read("# ours\nfirst-key-1\n\n  second-key-2\t\r\n#third-key-3\n  # four\nlast-key-5");
  EXPECT_EQ(keys.size(), 3);
  for (const char* key : {"first-key-1", "second-key-2", "last-key-5"}) {
    EXPECT_TRUE(keys.allows("Bearer " + std::string(key)));
    EXPECT_TRUE(keys.allows("bearer  " + std::string(key) + " "));
    EXPECT_TRUE(keys.allows_key(key));
  }
  for (const char* key : {"", "first-key-", "first-key-11", "First-key-1", "#third-key-3", "third-key-3", "# ours"}) {
    EXPECT_FALSE(keys.allows("Bearer " + std::string(key))) << key;
    EXPECT_FALSE(keys.allows_key(key)) << key;
  }
  for (const char* header : {"", "Bearer", "Bearer ", "first-key-1", "Basic first-key-1", "Bearerfirst-key-1"}) {
    EXPECT_FALSE(keys.allows(header)) << header;
  }
}

TEST_F(Keys, ThatAreNoneAreNamedByTheirLine) {
  const std::string blank = refused("good-key-1\n\nsecret two words\n");
  EXPECT_THAT(blank, HasSubstr("keys:3: a key is one word"));
  EXPECT_THAT(blank, Not(HasSubstr("secret")));
  const std::string brief = refused("# a\nsecret\n");
  EXPECT_THAT(brief, HasSubstr("keys:2: a key of 6 characters is too short"));
  EXPECT_THAT(brief, Not(HasSubstr("secret")));
  EXPECT_THAT(refused("k\u00e9y-with-accent"), HasSubstr("keys:1"));
  EXPECT_THAT(refused(std::string("key\0with-zero", 13)), HasSubstr("keys:1"));
  EXPECT_THAT(refused(""), HasSubstr("there is no key in it"));
  EXPECT_THAT(refused("# none\n \n"), HasSubstr("there is no key in it"));
}

TEST_F(Keys, AMissingFile) {
  try {
    ApiKeys::read(directory / "none");
    FAIL();
  } catch (const Error& error) {
    EXPECT_EQ(error.fault(), Fault::missing_input);
  }
}

TEST_F(Keys, AFileThatEverybodyReadsIsWarnedOf) {
  testing::internal::CaptureStderr();
  read("a-secret-key\n");
  EXPECT_EQ(testing::internal::GetCapturedStderr(), "");
  testing::internal::CaptureStderr();
  read("a-secret-key\n", fs::perms::owner_read | fs::perms::others_read);
  const std::string warning = testing::internal::GetCapturedStderr();
  EXPECT_THAT(warning, HasSubstr("can be read by everybody"));
  EXPECT_THAT(warning, Not(HasSubstr("a-secret-key")));
}

}  // namespace
}  // namespace drover
