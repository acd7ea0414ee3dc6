// What a checkpoint's run and the one that would go on from it must share, and keys that its program did not know yet.
#include "trainer/run/run_identity.h"

#include <gtest/gtest.h>

#include "kernels/base/error.h"
#include "kernels/cpu/cpu_backend.h"
#include "tests/base/scratch_directory.h"

namespace drover {
namespace {

class RunIdentity : public testing::Test {
 protected:
  // A checkpoint of a run of the default recipe, as a program writes it that does not know `unknown`.
  Checkpoint checkpoint(const std::string& unknown = {}) {
    const auto backend = make_cpu_backend(1);
    Arena arena("parameters", backend->memory(), 1 << 16);
    std::map<std::string, std::string> written = run_identity(Recipe{}, "model", "data");
    written.erase(unknown);
    save_checkpoint(dir_.path(), {.step = 1, .identity = written}, Trainables({}, *backend, arena, &arena), *backend,
                    make_self_mesh());
    return Checkpoint::open(dir_ / "step-1");
  }
  std::string refusal(const Checkpoint& checkpoint, const Recipe& recipe) {
    try {
      check_same_run(checkpoint, run_identity(recipe, "model", "data"), dir_.path());
    } catch (const Error& error) {
      EXPECT_EQ(error.fault(), Fault::bad_recipe);
      return error.what();
    }
    return {};
  }
  static Recipe with_ratio(double ratio) {
    Recipe recipe;
    recipe.optim.lora_plus_ratio = ratio;
    return recipe;
  }
  ScratchDirectory dir_;
};

TEST_F(RunIdentity, AnotherSettingIsRefusedByName) {
  const Checkpoint c = checkpoint();
  EXPECT_EQ(refusal(c, {}), "");
  EXPECT_NE(refusal(c, with_ratio(4)).find("optim.lora_plus_ratio: 1 in the checkpoint, 4 now"), std::string::npos);
}

TEST_F(RunIdentity, AKeyThatItsProgramDidNotKnowHadItsDefault) {
  const Checkpoint c = checkpoint("optim.lora_plus_ratio");
  EXPECT_EQ(refusal(c, {}), "");
  EXPECT_NE(refusal(c, with_ratio(4)).find("optim.lora_plus_ratio: 1 in the checkpoint, 4 now"), std::string::npos);
}

Recipe validated_by(Validation validation) {
  Recipe recipe;
  recipe.data.validation = std::move(validation);
  return recipe;
}
const Recipe kFile = validated_by({{{"a.jsonl"}}, 0}), kShare = validated_by({{}, 0.25});

TEST_F(RunIdentity, AShareForValidationCountsAndAFileDoesNot) {
  const Checkpoint c = checkpoint();
  EXPECT_EQ(refusal(c, kFile), "");
  EXPECT_NE(
      refusal(c, kShare).find("data.validation: no share of the training rows in the checkpoint, {share: 0.25} now"),
      std::string::npos);
  EXPECT_FALSE(validates_otherwise(c, run_identity(Recipe{}, "model", "data")));
  EXPECT_TRUE(validates_otherwise(c, run_identity(kFile, "model", "data", "content")));
}

TEST_F(RunIdentity, AProgramThatDidNotNoteValidationHadNoShare) {
  const Checkpoint c = checkpoint("data.validation");
  EXPECT_EQ(refusal(c, kFile), "");
  EXPECT_NE(refusal(c, kShare), "");
}

TEST_F(RunIdentity, ValidationThatWasNotNotedIsNotOther) {
  EXPECT_FALSE(validates_otherwise(checkpoint("validation data"), run_identity(kFile, "model", "data", "content")));
}

TEST_F(RunIdentity, RepeatsOfSourcesCount) {
  const Checkpoint c = checkpoint();
  Recipe recipe;
  recipe.data.train = {{"a"}, {"b"}};
  EXPECT_EQ(refusal(c, recipe), "");
  recipe.data.train[1].repeat = 0.5;
  EXPECT_NE(refusal(c, recipe).find("data.train: repeat: 1 in the checkpoint, 1, 0.5 now"), std::string::npos);
}

TEST_F(RunIdentity, OfAModelThatIsNotNamedNothingIsAssumed) {
  EXPECT_NE(refusal(checkpoint("model"), {}).find("model: (absent) in the checkpoint"), std::string::npos);
}

}  // namespace
}  // namespace drover
