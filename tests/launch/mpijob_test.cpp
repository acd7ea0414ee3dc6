// launch/cluster/mpijob.yaml against what kubeflow.org/v2beta1 asks of an MPIJob, and against itself: ranks, slots,
// GPUs, mounts.
#include <gmock/gmock.h>
#include <yaml-cpp/yaml.h>

#include <set>

namespace {

using testing::AnyOf;
using testing::IsSubsetOf;

const YAML::Node& job() {
  static const YAML::Node node = YAML::LoadFile(DROVER_SOURCE_DIR "/launch/cluster/mpijob.yaml");
  return node;
}

YAML::Node replicas(const char* role) { return job()["spec"]["mpiReplicaSpecs"][role]; }
YAML::Node container(const char* role) { return replicas(role)["template"]["spec"]["containers"][0]; }

std::set<std::string> keys(const YAML::Node& map) {
  std::set<std::string> names;
  for (const auto& entry : map) names.insert(entry.first.as<std::string>());
  return names;
}

std::vector<std::string> strings(const YAML::Node& list) { return list.as<std::vector<std::string>>(); }

TEST(MpiJob, HasTheFieldsOfV2beta1) {
  EXPECT_EQ(job()["apiVersion"].as<std::string>(), "kubeflow.org/v2beta1");
  EXPECT_EQ(job()["kind"].as<std::string>(), "MPIJob");
  EXPECT_FALSE(job()["metadata"]["name"].as<std::string>().empty());
  const YAML::Node spec = job()["spec"];
  EXPECT_THAT(keys(spec), IsSubsetOf({"slotsPerWorker", "runPolicy", "mpiReplicaSpecs", "mpiImplementation",
                                      "sshAuthMountPath", "launcherCreationPolicy"}));
  EXPECT_THAT(keys(spec["runPolicy"]), IsSubsetOf({"cleanPodPolicy", "ttlSecondsAfterFinished", "activeDeadlineSeconds",
                                                   "backoffLimit", "schedulingPolicy", "suspend", "managedBy"}));
  EXPECT_THAT(spec["runPolicy"]["cleanPodPolicy"].as<std::string>(), AnyOf("None", "Running", "All"));
  EXPECT_GE(spec["runPolicy"]["backoffLimit"].as<int>(), 0);
  EXPECT_EQ(spec["mpiImplementation"].as<std::string>(), "OpenMPI");  // others: MPICH, Intel
  EXPECT_EQ(keys(spec["mpiReplicaSpecs"]), (std::set<std::string>{"Launcher", "Worker"}));
  for (const char* role : {"Launcher", "Worker"}) {
    EXPECT_THAT(keys(replicas(role)), IsSubsetOf({"replicas", "template", "restartPolicy"}));
    EXPECT_GE(replicas(role)["replicas"].as<int>(), 1);
    EXPECT_EQ(keys(replicas(role)["template"]), (std::set<std::string>{"spec"}));
    EXPECT_THAT(keys(replicas(role)["template"]["spec"]),
                IsSubsetOf({"containers", "volumes", "terminationGracePeriodSeconds"}));
    ASSERT_EQ(replicas(role)["template"]["spec"]["containers"].size(), 1);
    EXPECT_THAT(keys(container(role)),
                IsSubsetOf({"name", "image", "command", "args", "env", "resources", "volumeMounts"}));
    EXPECT_FALSE(container(role)["name"].as<std::string>().empty());
    EXPECT_FALSE(container(role)["image"].as<std::string>().empty());
    EXPECT_FALSE(strings(container(role)["command"]).empty());
    for (const auto& word : container(role)["args"]) EXPECT_TRUE(word.IsScalar());
  }
  EXPECT_EQ(replicas("Launcher")["replicas"].as<int>(), 1);
  EXPECT_THAT(replicas("Launcher")["restartPolicy"].as<std::string>(), AnyOf("Never", "OnFailure"));
}

// A number among the arguments is quoted: Kubernetes refuses any but strings there.
TEST(MpiJob, ArgumentsAreStrings) {
  for (const char* role : {"Launcher", "Worker"}) {
    for (const auto& word : container(role)["args"]) {
      int number = 0;
      EXPECT_TRUE(word.Tag() == "!" || !YAML::convert<int>::decode(word, number)) << word.as<std::string>();
    }
  }
}

TEST(MpiJob, HasARankForEveryGpu) {
  const int slots = job()["spec"]["slotsPerWorker"].as<int>();
  EXPECT_EQ(container("Worker")["resources"]["limits"]["nvidia.com/gpu"].as<int>(), slots);
  EXPECT_FALSE(container("Launcher")["resources"]["limits"]["nvidia.com/gpu"]);
  const std::vector<std::string> args = strings(container("Launcher")["args"]);
  const auto n = std::find(args.begin(), args.end(), "-n");
  ASSERT_NE(n, args.end());
  EXPECT_EQ(std::stoi(*std::next(n)), replicas("Worker")["replicas"].as<int>() * slots);
}

TEST(MpiJob, WorkersListenAndShareMemory) {
  EXPECT_EQ(strings(container("Worker")["command"]).front(), "/usr/sbin/sshd");
  std::map<std::string, YAML::Node> volumes;
  for (const YAML::Node& volume : replicas("Worker")["template"]["spec"]["volumes"])
    volumes.emplace(volume["name"].as<std::string>(), volume);
  bool shared_memory = false;
  for (const auto& mount : container("Worker")["volumeMounts"]) {
    const auto volume = volumes.find(mount["name"].as<std::string>());
    ASSERT_NE(volume, volumes.end());
    if (mount["mountPath"].as<std::string>() == "/dev/shm")
      shared_memory = volume->second["emptyDir"]["medium"].as<std::string>() == "Memory";
  }
  EXPECT_TRUE(shared_memory);
}

}  // namespace
