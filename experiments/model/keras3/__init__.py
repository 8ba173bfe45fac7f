"""What models of Keras 3 require, and models of Keras 2 do not."""
