// Runs one target over the files and folders that are named, with the ordinary compiler. Names each file before it is
// read, so that the last line says which one ended the program. 66 where a name is missing or a folder is empty.
#include <iostream>
#include <vector>

#include "tests/fuzz/fuzz.h"

int main(int count, char** names) {
  using namespace drover;
  std::vector<fs::path> files;
  for (int i = 1; i < count; ++i) {
    const fs::path path = names[i];
    const size_t before = files.size();
    if (fs::is_regular_file(path)) files.push_back(path);
    if (fs::is_directory(path)) {
      for (const fs::directory_entry& entry : fs::directory_iterator(path)) {
        if (entry.is_regular_file()) files.push_back(entry.path());
      }
    }
    if (files.size() == before) {
      std::cerr << path.string() << " is neither a file nor a folder with files\n";
      return 66;
    }
  }
  if (files.empty()) {
    std::cerr << "usage: " << names[0] << " FILE|FOLDER…\n";
    return 64;
  }
  std::sort(files.begin(), files.end());
  for (const fs::path& file : files) {
    std::cout << file.string() << std::endl;
    const std::string text = read_text(file);
    // An allocation of exactly this size, so that reading past the end is seen by a sanitizer.
    const std::vector<uint8_t> bytes(text.begin(), text.end());
    LLVMFuzzerTestOneInput(bytes.data(), bytes.size());
  }
  std::cout << files.size() << " inputs\n";
  return 0;
}
