#include "data/file_kind.h"

#include <array>

#include "kernels/base/error.h"

namespace drover {

namespace {

using namespace std::string_view_literals;

struct Kind {
  std::string_view begins, what, command;  // {} is the file
};

constexpr std::array kKinds{
    Kind{"\x1F\x8B"sv, "compressed by gzip", "gunzip --keep '{}'"},
    Kind{"\x28\xB5\x2F\xFD"sv, "compressed by zstd", "zstd -d '{}'"},
    Kind{"\xFD"
         "7zXZ"sv,
         "compressed by xz", "xz -dk '{}'"},
    Kind{"PK\x03\x04"sv, "a zip archive", "unzip '{}'"},
    Kind{"PAR1"sv, "a Parquet table",
         "python3 -c \"import pandas; pandas.read_parquet('{0}').to_json('{0}.jsonl', orient='records', lines=True)\""},
    Kind{"ARROW1"sv, "an Arrow table",
         "python3 -c \"import pandas; pandas.read_feather('{0}').to_json('{0}.jsonl', orient='records', lines=True)\""},
    Kind{"\xFF\xFE"sv, "text in UTF-16", "iconv -f UTF-16 -t UTF-8 '{0}' > '{0}.utf8'"},
    Kind{"\xFE\xFF"sv, "text in UTF-16", "iconv -f UTF-16 -t UTF-8 '{0}' > '{0}.utf8'"},
    Kind{"{\0"sv, "text in UTF-16", "iconv -f UTF-16LE -t UTF-8 '{0}' > '{0}.utf8'"},
    Kind{"\0{"sv, "text in UTF-16", "iconv -f UTF-16BE -t UTF-8 '{0}' > '{0}.utf8'"},
    Kind{kLfsPointer, "a Git LFS pointer, not the file itself", "git lfs pull --include '{}'"},
};

}  // namespace

void refuse_other_kinds(const fs::path& file, std::string_view bytes) {
  const auto refuse = [&](std::string_view what, const std::string& command) {
    fail(Fault::bad_data, "{}: is {}; rows are lines of JSON in UTF-8, made so: {}", file.string(), what, command);
  };
  for (const Kind& kind : kKinds) {
    if (bytes.starts_with(kind.begins)) refuse(kind.what, fmt::format(fmt::runtime(kind.command), file.string()));
  }
  const size_t first = bytes.find_first_not_of(" \t\r\n");
  if (first != std::string_view::npos && bytes[first] == '[')
    refuse("one JSON list", fmt::format("jq -c '.[]' '{0}' > '{0}.jsonl'", file.string()));
}

}  // namespace drover
