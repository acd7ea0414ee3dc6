// Sequences that begin alike share the blocks of what they have in common: a tree of full blocks, one for each set of
// weights, whose paths are token ids. A block is found by the weights' content and by all tokens up to its end,
// compared one by one, never by a name or a short hash: nobody gets the keys and values of another text or adapter.
// Blocks that no sequence holds stay until the room is needed; those that were used least recently are given up first.
// Sources: Kwon et al. 2023 (blocks); Zheng et al. 2024 (SGLang's tree of prefixes).
//
// A shared block has the same bits as the one that a sequence would have computed for itself: on a CPU a row's keys and
// values do not depend on the pass that computed them.
#pragma once
#include <array>
#include <list>
#include <map>
#include <memory>
#include <span>
#include <string>

#include "model/generation/kv_pool.h"

namespace drover {

class PrefixCache {
 public:
  explicit PrefixCache(KvPool& pool) : pool_(pool) {}

  struct Node;
  // A sequence whose first blocks belong to the tree.
  struct Sequence : CachedSequence {
    Node* last_shared = nullptr;  // the node of the last one; null: none is shared
    int64_t shared = 0;           // blocks
  };

  // The empty sequence gets the longest part of `ids` that is there, but for its last token, which is to be computed.
  // `weights` names base and adapter by their content.
  void adopt(Sequence& sequence, const std::string& weights, std::span<const int32_t> ids);
  // Full blocks of the sequence, whose tokens are `ids`, become part of the tree; one that is there already is given
  // back and the tree's is taken in its place.
  void publish(Sequence& sequence, const std::string& weights, std::span<const int32_t> ids);

  // As KvPool's: blocks that nobody holds are given up for it.
  bool reserve(Sequence& sequence, int64_t tokens);
  void release(Sequence& sequence);
  int64_t free_blocks() const { return pool_.free_blocks() + static_cast<int64_t>(unheld_.size()); }
  int64_t kept_blocks() const {
    return static_cast<int64_t>(unheld_.size());
  }  // of these, those that may be found again

 private:
  using Tokens = std::array<int32_t, KvPool::kBlockTokens>;
  static Tokens tokens_of(std::span<const int32_t> ids, int64_t block);
  Node& root_of(const std::string& weights);
  void hold(Node& node);
  void give_up_one();

  KvPool& pool_;
  std::map<std::string, std::unique_ptr<Node>> roots_;
  std::list<Node*>
      unheld_;  // the one that is given up next comes first; a node comes before those on its way to the root
};

struct PrefixCache::Node {
  int32_t block = -1;  // a root has none
  int64_t holders = 0;
  Node* parent = nullptr;
  Tokens tokens = {};
  std::map<Tokens, std::unique_ptr<Node>> children;
  std::list<Node*>::iterator place = {};  // in unheld_, where nobody holds it
  std::string weights = {};               // of a root
};

}  // namespace drover
